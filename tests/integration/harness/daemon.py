"""The real daemon, in a state folder of its own. Whatever a test does, nothing of it is left running."""
import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

from .client import TOP, Client, pb

SANITIZER = re.compile(r"ERROR: (Address|Leak|Thread|Memory)Sanitizer|runtime error: |WARNING: ThreadSanitizer")
# Of what a test waits for: on a busy machine everything takes its time.
PATIENCE = 90
STARTUP_TIMEOUT = 90
STOP_TIMEOUT = 90


def program(variable, path):
    """A program under test: the environment says another one, else what bazel built."""
    found = os.environ.get(variable) or os.path.join(TOP, "bazel-bin", path)
    assert os.path.exists(found), f"{found} is missing: tools/test builds it"
    return found


def wait_until(condition, what, timeout=PATIENCE, interval=0.02):
    """Polls condition() until it is true, and answers its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(interval)


def process_state(pid):
    """The state letter of a process, or None if it is gone. A zombie is as good as gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def alive(pid):
    return process_state(pid) not in (None, "Z", "X")


class Daemon:
    """virtplaned. `folder` holds all: state/, socket, log."""

    def __init__(self, folder=None, config=None, env=None, listen=None, prefix=()):
        """`prefix`: a command that runs the daemon's, as in ["prlimit", "--nofile=64"]."""
        self.prefix = list(prefix)
        self.folder = folder or tempfile.mkdtemp(prefix="vp-", dir="/tmp")
        self.owns_folder = folder is None
        self.state_dir = os.path.join(self.folder, "state")
        self.socket = os.path.join(self.folder, "sock")
        self.address = "unix:" + self.socket
        self.log_path = os.path.join(self.folder, "log")
        self.listen = listen or [self.address]
        self.arguments = []
        self.env = dict(os.environ, GRPC_VERBOSITY="error", VIRTPLANE_TEST_FOLDER=self.folder, **(env or {}))
        self.env.setdefault("ASAN_OPTIONS", "detect_leaks=1:exitcode=66:abort_on_error=0")
        self.env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        self.config = config
        self.process = None
        self.clients = []
        self.ready_line = ""
        os.makedirs(self.state_dir, mode=0o700, exist_ok=True)

    # ---- life ----

    def command(self):
        command = [*self.prefix, program("VIRTPLANED", "server/virtplaned"), "--state-dir", self.state_dir]
        if self.config is not None:
            path = os.path.join(self.folder, "virtplaned.conf")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.config)
            command += ["--config", path]
        for address in self.listen:
            command += ["--listen", address]
        return command + self.arguments

    def start(self):
        """Starts the daemon and waits until it says that it answers."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        start_of_log = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env)
        deadline = time.monotonic() + STARTUP_TIMEOUT
        while True:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                file.seek(start_of_log)
                ready = [line for line in file.read().split("\n")[:-1] if re.match(r"(<\d>)?ready\b", line)]
            if ready:
                self.ready_line = ready[-1]
                return self
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode} at its start:\n{self.log()}"
            assert time.monotonic() < deadline, f"the daemon was not ready within {STARTUP_TIMEOUT} s:\n{self.log()}"
            time.sleep(0.01)

    def try_start(self, timeout=STARTUP_TIMEOUT):
        """Runs the daemon where it is expected to refuse; answers (exit code, what it said)."""
        done = subprocess.run(self.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self.env,
                              timeout=timeout, text=True, errors="replace")
        return done.returncode, done.stdout

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT)
        self.close_clients()

    def terminate(self):
        """SIGTERM, without waiting."""
        self.process.send_signal(signal.SIGTERM)

    def wait_end(self, timeout=STOP_TIMEOUT):
        code = self.process.wait(timeout)
        assert code == 0, f"the daemon ended with {code}:\n{self.log()}"

    def stop(self):
        """SIGTERM, and it must end well."""
        self.close_clients()
        self.terminate()
        self.wait_end()

    def restart(self):
        self.stop()
        self.start()

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    # ---- what is there ----

    def log(self):
        with contextlib.suppress(OSError), open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()
        return ""

    def client(self):
        client = Client(self.address)
        self.clients.append(client)
        return client

    def close_clients(self):
        for client in self.clients:
            client.close()
        self.clients.clear()

    def path(self, name):
        """A path for a test's own files."""
        return os.path.join(self.folder, name)

    def hypervisors(self):
        """The pids of the QEMUs that belong to this daemon, by what they were started with."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    arguments = file.read()
                with open(f"/proc/{pid}/environ", "rb") as file:
                    environment = file.read()
                mine = (self.folder.encode() + b"/" in arguments or f"VIRTPLANE_TEST_FOLDER={self.folder}\0".encode() in environment
                        or os.readlink(f"/proc/{pid}/fd/2").startswith(self.folder + "/"))
                if mine and b"qemu-system" in arguments and alive(int(pid)):
                    found.append(int(pid))
        return found

    def known_pids(self):
        """The pids that the daemon itself names, if it answers."""
        with contextlib.suppress(Exception):
            return [domain.status.pid for domain in self.client().domain.ListDomains(pb.ListDomainsRequest(), timeout=5).domains
                    if domain.status.pid and domain.spec.driver == "qemu"]
        return []

    # ---- the end ----

    def dispose(self):
        """Ends everything and checks how it ended: the daemon at SIGTERM with 0, and no sanitizer had anything to say."""
        pids = self.known_pids() if self.running else []
        stuck, code = False, 0
        self.close_clients()
        if self.running:
            # A stopped process hears no SIGTERM.
            self.process.send_signal(signal.SIGCONT)
            self.terminate()
            try:
                code = self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                stuck = True
                self.process.kill()
                self.process.wait()
        for pid in set(pids) | set(self.hypervisors()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        log = self.log()
        print(f"---- {self.log_path}\n{log}", end="")
        if self.owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        assert not stuck, "the daemon did not end within the time at SIGTERM"
        assert code == 0, f"the daemon ended with {code} at SIGTERM"
        report = SANITIZER.search(log)
        assert not report, f"a sanitizer reported: {log[report.start():report.start() + 3000]}"


class Lines:
    """The lines of a pipe as they come, each waited for with a deadline."""

    def __init__(self, stream):
        self.fd, self.rest = stream.fileno(), b""

    def next(self, timeout=PATIENCE):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no line within {timeout} s"
            data = os.read(self.fd, 65536)
            if not data:
                raise EOFError(f"the stream ended: {self.rest!r}")
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode(errors="replace")
