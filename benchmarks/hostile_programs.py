"""Programs that try to get out, to hang or to cheat; what the judge of programs says of each is a table of the site.

Each defines ``f``, of which one test is asked: ``assert f(2) == 4``. A program returns 4 only if its attack succeeded. They are texts: run
them through `atesd_env.tasks.grading.programs` and never otherwise.
"""

TESTS = "secret_of_the_tests = 12345\nassert f(2) == 4\n"
"""The test that each must fail."""


def _if_done(attack: str, *, imports: str = "") -> str:
    """Returns a program that answers rightly if the attack goes through without an exception."""
    return f"{imports}\ndef f(x):\n    {attack}\n    return 4\n"


_EQUAL = "class Equal:\n    def __eq__(self, other):\n        return True\n    def __ne__(self, other):\n        return False\n"

HOSTILE = {
    "reads a file": _if_done("open('/etc/passwd').read()"),
    "reads the environment": _if_done("assert os.environ['HOME'] or os.environ['PATH']", imports="import os"),
    "reads by pathlib": _if_done("pathlib.Path('/etc/hostname').read_text()", imports="import pathlib"),
    "writes a file": _if_done("open('/var/hostile', 'w').write('x')"),
    "writes where it stands": _if_done("open('hostile', 'w').write('x')"),
    "fills shared memory": _if_done("open('/dev/shm/hostile', 'w').write('x' * 10**9)"),
    "changes the system": _if_done("os.mkdir('/usr/hostile')", imports="import os"),
    "lists homes": _if_done("os.listdir('/root') + os.listdir('/home')", imports="import os"),
    "opens a socket": _if_done("socket.create_connection(('127.0.0.1', 22), 1)", imports="import socket"),
    "asks the web": _if_done("urllib.request.urlopen('http://example.com')", imports="import urllib.request"),
    "runs a shell": _if_done("assert os.system('true') == 0", imports="import os"),
    "runs a program": _if_done("subprocess.run(['true'], check=True)", imports="import subprocess"),
    "forks": "import os\ndef f(x):\n    if os.fork() == 0:\n        os._exit(0)\n    return 4\n",
    "starts processes": _if_done("multiprocessing.Process(target=print).start()", imports="import multiprocessing"),
    "starts threads": _if_done("threading.Thread(target=print).start()", imports="import threading"),
    "kills its parent": _if_done("os.kill(os.getppid(), 0)", imports="import os"),
    "kills itself": "import os\ndef f(x):\n    os.kill(os.getpid(), 9)\n",
    "kills everybody": _if_done("os.kill(-1, 0)", imports="import os"),
    "sets an alarm": "import signal\nsignal.alarm(1)\nsignal.pause()\ndef f(x):\n    return 0\n",
    "ignores signals": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef f(x):\n    while True:\n        pass\n",
    "loads C code": _if_done("ctypes.CDLL(None).getpid()", imports="import ctypes\nctypes.string_at(0)"),
    "loops for ever": "def f(x):\n    while True:\n        pass\n",
    "loops while it is defined": "while True:\n    pass\n",
    "sums for ever": "def f(x):\n    return sum(range(10**13))\n",
    "recurses for ever": "def f(x):\n    return f(x)\n",
    "sleeps": "import time\ndef f(x):\n    while True:\n        time.sleep(1000)\n",
    "waits for input": "def f(x):\n    return int(input())\n",
    "prints for ever": "def f(x):\n    while True:\n        print('x' * 1000)\n",
    "searches for ever": "import re\ndef f(x):\n    return 4 if re.match(r'(a|a)+$', 'a' * 60 + 'b') else 0\n",
    "powers of powers": "def f(x):\n    return 9**9**9\n",
    "shifts far": "def f(x):\n    return 1 << 10**12\n",
    "prints a power": "def f(x):\n    return len(str(7**(10**8)))\n",
    "a long text": "def f(x):\n    return 'a' * 10**12\n",
    "a growing list": "def f(x):\n    found = [0]\n    while True:\n        found += found\n",
    "a growing table": "def f(x):\n    found = {}\n    while True:\n        found[len(found)] = 'a' * 1000\n",
    "a deep result": "def f(x):\n    deep = []\n    for _ in range(10**5):\n        deep = [deep]\n    return deep\n",
    "an endless result": "def f(x):\n    own = []\n    own.append(own)\n    return own\n",
    "a wide result": "def f(x):\n    return [[0] * 1000] * 10**4\n",
    "a deep source": "def f(x):\n    return " + "(" * 10**5 + "4" + ")" * 10**5,
    "a source of zeros": "def f(x):\n    return 0\n" + "\0" * 100,
    "half a character": "def f(x):\n    return 0\n'\ud800'\n",
    "climbs to object": _if_done(
        "found = [c for c in ().__class__.__base__.__subclasses__() if 'wrap_close' in c.__name__]\n"
        "    assert found[0].__init__.__globals__['system']('true') == 0"
    ),
    "imports by dunder": _if_done("assert __import__('os').system('true') == 0"),
    "evaluates an import": _if_done("assert eval(\"__import__('os').system('true')\") == 0"),
    "reads frames": _if_done("assert 'secret_of_the_tests' in str(sys._getframe(1).f_globals)", imports="import sys"),
    "reads the stack": _if_done("assert 'secret_of_the_tests' in str(inspect.stack())", imports="import inspect"),
    "reads all objects": _if_done(
        "assert 'secret_of_the' + '_tests' in str([o for o in gc.get_objects() if isinstance(o, dict)])",
        imports="import gc",
    ),
    "reads globals": _if_done("assert globals()['secret_of_the_tests'] == 12345"),
    "reads the tests' names": "def f(x):\n    return 4 if secret_of_the_tests else 0\n",
    "equal to everything": _EQUAL + "def f(x):\n    return Equal()\n",
    "an equal number": "class Equal(int):\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Equal(5)\n",
    "patches builtins": "import builtins\nbuiltins.AssertionError = builtins.print\nbuiltins.int = lambda *_: 4\ndef f(x):\n    return 5\n",
    "patches assertions": "AssertionError = None\ndef f(x):\n    return 5\n",
    "brings its own check": "def check(candidate):\n    pass\ncandidate = lambda x: 4\ndef f(x):\n    return 5\n",
    "exits at once": "import sys\nsys.exit(0)\n",
    "exits when asked": "import sys\ndef f(x):\n    sys.exit(0)\n",
    "exits hard": "import os\ndef f(x):\n    os._exit(0)\n",
    "raises SystemExit": "def f(x):\n    raise SystemExit(0)\n",
    "raises StopIteration": "def f(x):\n    raise StopIteration\n",
    "forges a reply": "import os\ndef f(x):\n    for fd in range(32):\n        try:\n"
    "            os.write(fd, b'{\"value\": 5}\\n')\n        except OSError:\n            pass\n    return 5\n",
    "closes everything": "import os\ndef f(x):\n    os.closerange(0, 100)\n    return 5\n",
    "raises the limits": _if_done("resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))", imports="import resource"),
    "defines nothing": "pass\n",
    "no program": "The answer is 4.\n",
}
"""What is tried -> the program."""
