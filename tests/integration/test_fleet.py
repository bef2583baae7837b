"""Many domains at once: all start, are listed and counted, and end, without one error; what that costs the daemon is printed."""
import collections
import os
import threading
import time

from harness.client import pb
from harness.domains import act, create, get, names

# Tiny, and paused: QEMU itself is what is slow.
NUMBER = 100 if os.environ.get("VIRTPLANE_FULL") else 24
STATS_SECONDS = 5
AT_ONCE = 8


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        [kib] = [line.split()[1] for line in file if line.startswith("VmRSS")]
    return int(kib) / 1024


def all_of(daemon, call, wanted):
    """Calls call(client, name) for each name, some at a time; answers how long that took. The first error is raised."""
    left, errors = collections.deque(wanted), []

    def work(client):
        while left and not errors:
            try:
                call(client, left.popleft())
            except Exception as error:  # told by the test
                errors.append(error)

    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(daemon.client(),)) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.monotonic() - began


def test_many_at_once(daemon, client):
    wanted = [f"vm-{i:03}" for i in range(NUMBER)]
    for name in wanted:
        create(client, name, driver="qemu", memory_mib=16, accelerator=pb.ACCELERATOR_TCG)
    idle = memory_mib(daemon.process.pid)
    started = all_of(daemon, lambda client, name: act(client, "Start", name, paused=True, timeout_seconds=240), wanted)
    assert names(client) == wanted
    began = time.monotonic()
    listed = client.domain.ListDomains(pb.ListDomainsRequest(page_size=1000)).domains
    took_list = time.monotonic() - began
    assert {domain.status.state for domain in listed} == {pb.DOMAIN_STATE_PAUSED} and len({domain.status.pid for domain in listed}) == NUMBER

    request = pb.WatchDomainStatsRequest()
    request.interval.FromSeconds(1)
    used, began, counted = cpu_seconds(daemon.process.pid), time.monotonic(), collections.Counter()
    stream = client.domain.WatchDomainStats(request, timeout=60)
    for sample in stream:
        # On a host that is busy with other things one may come too late for a sample; it comes in the next.
        counted[sample.stats.name] += sample.stats.state == pb.DOMAIN_STATE_PAUSED
        if time.monotonic() - began > STATS_SECONDS and len(counted) == NUMBER and min(counted.values()) >= 2:
            break
    stream.cancel()
    watched = time.monotonic() - began
    used = cpu_seconds(daemon.process.pid) - used
    assert sorted(counted) == wanted
    print(f"{NUMBER} domains: started in {started:.1f} s, listed in {took_list * 1e3:.1f} ms; counters of all once a second: {100 * used / watched:.1f} % of a "
          f"CPU; {memory_mib(daemon.process.pid):.0f} MiB, {idle:.0f} MiB before")

    ended = all_of(daemon, lambda client, name: act(client, "PowerOff", name), wanted)
    assert all(get(client, name).status.state == pb.DOMAIN_STATE_SHUTOFF for name in wanted) and daemon.hypervisors() == []
    print(f"ended in {ended:.1f} s")
