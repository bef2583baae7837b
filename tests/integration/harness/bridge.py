"""A bridge of the host's with an address of its own, so that tests that run at the same time do not take each other's packets."""
import contextlib
import json
import os
import random
import subprocess

# For tests of networks (RFC 2544): nobody routes it.
NETWORK = "198.18"


class Bridge:
    """`name` of the interface, the `host`'s address on it (/24), and one for the `guest`."""

    def __init__(self, name, subnet):
        self.name, self.host, self.guest = name, f"{subnet}.1", f"{subnet}.2"

    def add_address(self):
        subprocess.run(["ip", "address", "add", self.host + "/24", "dev", self.name], check=True)


def free_subnet():
    """One that no interface here has. At random: two processes that ask at the same moment get different ones."""
    told = json.loads(subprocess.run(["ip", "-j", "-4", "address"], check=True, stdout=subprocess.PIPE).stdout)
    taken = {info["local"].rsplit(".", 1)[0] for link in told for info in link.get("addr_info", [])}
    return random.choice([subnet for subnet in (f"{NETWORK}.{number}" for number in range(256)) if subnet not in taken])


@contextlib.contextmanager
def bridge():
    """Makes one that is up, without its address yet; None where this user may not, or has no tap devices."""
    made = Bridge(f"vpt{os.getpid() % 10000000}", free_subnet())
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK) or \
            subprocess.run(["ip", "link", "add", made.name, "type", "bridge"], check=False, capture_output=True).returncode != 0:
        yield None
        return
    try:
        subprocess.run(["ip", "link", "set", made.name, "up"], check=True)
        yield made
    finally:
        subprocess.run(["ip", "link", "del", made.name], check=True)
