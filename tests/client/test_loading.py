"""Code that asks for the client of the process while that client is made: it is answered, or told why not."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mrq_core.client import ambient as ambient_module
from mrq_core.client.ambient import configure, current_client, queue_job
from mrq_core.client.handles import Job, Queue
from mrq_core.config import loading as loading_module
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.errors import ConfigError
from mrq_core.running.context import get_current_config

PATIENCE = 30.0

_CLIENT_ASKED = "the client of this process was asked for while the config file is being loaded"
_CONFIG_ASKED = "the configuration was asked for while the config file is being loaded"
ASKING = {
    "get_current_config()": _CONFIG_ASKED,
    "queue_job('a.B')": _CLIENT_ASKED,
    "Queue('x').size()": _CLIENT_ASKED,
    "Job('a' * 24).fetch()": _CLIENT_ASKED,
    "get_job_result('a' * 24)": _CLIENT_ASKED,
    "configure()": _CONFIG_ASKED,
}
IMPORTS = (
    "from mrq_core import Job, Queue, configure, get_current_config, get_job_result, hookimpl, queue_job\n"
)


@pytest.fixture(autouse=True)
def _new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ambient_module, "_process_client", None)
    monkeypatch.chdir(tmp_path)


def run(code: str, folder: Path, first: str = "") -> str:
    """What a program prints that must end."""
    (folder / "program.py").write_text(first + IMPORTS + code)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(("call", "words"), ASKING.items())
@pytest.mark.parametrize("first", ["queue_job('a.B')", "configure()", "get_current_config()"])
def test_the_config_file_is_told_that_it_is_not_loaded_yet(
    tmp_path: Path, first: str, call: str, words: str
) -> None:
    (tmp_path / "mrq-config.py").write_text(f"{IMPORTS}GREENLETS = 3\nX = {call}\n")
    printed = run(
        f"try:\n    {first}\nexcept ValueError: pass\nexcept Exception as error: print(error)\n", tmp_path
    )
    assert printed.startswith("the config file mrq-config.py failed, line 3: ConfigError: " + words), printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "call", [call for call in ASKING if call not in ("get_current_config()", "configure()")]
)
def test_a_plugin_is_told_that_the_client_is_not_ready(tmp_path: Path, call: str) -> None:
    (tmp_path / "mrq-config.py").write_text("PLUGINS = ['plug']\n")
    (tmp_path / "plug.py").write_text(f"{IMPORTS}X = {call}\n")
    printed = run("try:\n    queue_job('a.B')\nexcept Exception as error: print(error)\n", tmp_path)
    assert printed.startswith(
        "the plugin plug (PLUGINS) cannot be loaded: ConfigError: the client of this process was asked for "
        "while the plugin is being loaded, and is not ready before that has ended"
    ), printed


def test_a_plugin_reads_the_configuration_that_loads_it(tmp_path: Path) -> None:
    (tmp_path / "mrq-config.py").write_text("PLUGINS = ['plug']\nSHOP = 'x'\n")
    (tmp_path / "plug.py").write_text(
        f"{IMPORTS}config = get_current_config()\nprint(config['SHOP'], config['GREENLETS'])\n"
    )
    assert run("configure(greenlets=7)\nqueue_job('a.B')\n", tmp_path) == "x 7\n"
    assert run("queue_job('a.B')\nprint(Queue('default').size())\n", tmp_path) == "x 1\n2\n"
    done = subprocess.run(
        [sys.executable, "-m", "mrq_core.cli", "worker", "--burst", "--quiet", "--greenlets", "5"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert "x 5\n" in done.stdout, done.stderr


def test_a_plugin_that_configures_the_process_wins(tmp_path: Path) -> None:
    (tmp_path / "mrq-config.py").write_text("PLUGINS = ['plug']\n")
    (tmp_path / "plug.py").write_text(f"{IMPORTS}configure(redis_prefix='mine', plugins=[])\n")
    printed = run("queue_job('a.B')\nprint(get_current_config()['REDIS_PREFIX'])\n", tmp_path)
    assert printed == "mine\n"


@pytest.mark.parametrize("first", ["queue_job('a.B')", "configure()"])
def test_a_plugin_that_configures_the_process_with_itself_is_refused(tmp_path: Path, first: str) -> None:
    (tmp_path / "mrq-config.py").write_text("PLUGINS = ['plug']\n")
    (tmp_path / "plug.py").write_text(
        f"{IMPORTS}configure()\n@hookimpl\ndef mrq_jobs_enqueued(records): pass\n"
    )
    printed = run(f"{first}\n", tmp_path)
    assert "ConfigError: the plugin plug (PLUGINS) cannot be loaded" in printed
    assert "it makes a client while it is loaded" in printed


def test_modules_may_make_handles_while_plugins_load(tmp_path: Path) -> None:
    """A plugin imports the tasks of the program, and these have handles at the level of their module."""
    (tmp_path / "mrq-config.py").write_text("PLUGINS = ['plug']\nimport shop\n")
    (tmp_path / "plug.py").write_text(
        f"{IMPORTS}import shop\n@hookimpl\ndef mrq_before_enqueue(record): pass\n"
    )
    (tmp_path / "shop.py").write_text(
        f"{IMPORTS}from mrq_core import task\nmails = Queue('mail')\nfirst = Job('a' * 24)\n"
        "@task(queue='mail')\ndef send() -> int:\n    return mails.size()\n"
    )
    printed = run("import shop\nqueue_job(shop.send)\nprint(shop.mails.size())\n", tmp_path)
    assert printed == "1\n"
    done = subprocess.run(
        [sys.executable, "-m", "mrq_core.cli", "run", "shop.send"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("hook", ["mrq_before_enqueue", "mrq_driver"])
def test_hooks_may_ask_for_the_configuration(tmp_path: Path, hook: str) -> None:
    argument = "" if hook == "mrq_driver" else "record"
    (tmp_path / "mrq-config.py").write_text(
        f"{IMPORTS}SHOP = 'x'\n@hookimpl\ndef {hook}({argument}): print(get_current_config()['SHOP'])\n"
    )
    assert run("queue_job('a.B')\n", tmp_path) == "x\n"


def test_threads_that_come_first_together_get_one_client(tmp_path: Path) -> None:
    (tmp_path / "mrq-config.py").write_text("import time\nprint('loaded')\ntime.sleep(0.2)\n")
    clients = set()
    threads = [threading.Thread(target=lambda: clients.add(current_client())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(clients) == 1
    clients.pop().close()


PATCH = "from gevent import monkey; monkey.patch_all()\n"


@pytest.mark.parametrize(
    ("first", "loaded"), [(PATCH, 1), (f"import mrq_core.client.ambient\n{PATCH}", 1), ("import gevent\n", 5)]
)
def test_greenlets_that_come_first_together_get_one_client(tmp_path: Path, first: str, loaded: int) -> None:
    """Also where gevent patches after mrq was imported, or not at all, and the config file yields."""
    (tmp_path / "mrq-config.py").write_text("import gevent\nprint('loaded')\ngevent.sleep(0.1)\n")
    (tmp_path / "first.py").write_text(first)
    (tmp_path / "program.py").write_text(
        "import first, gevent\nfrom mrq_core.client.ambient import current_client\n"
        "greenlets = [gevent.spawn(current_client) for _ in range(5)]\n"
        "gevent.joinall(greenlets, raise_error=True)\nprint(len({one.value for one in greenlets}))\n"
    )
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.stdout == "loaded\n" * loaded + "1\n", done.stderr


@pytest.mark.parametrize("first", ["", "from gevent import monkey; monkey.patch_all()\n"])
def test_a_greenlet_that_was_spawned_before_the_config_file_is_loaded_waits_for_it(
    tmp_path: Path, first: str
) -> None:
    (tmp_path / "mrq-config.py").write_text(
        "import gevent\nimport mrq_core.config.loading\n"
        "mrq_core.config.loading._PATIENCE_WITH_SPAWNER = 0.1\ngevent.sleep(0.5)\n"
    )
    printed = run(
        "import gevent\n"
        "def ask():\n    gevent.sleep(0.05)\n    queue_job('a.B')\n"
        "early = gevent.spawn(ask)\nqueue_job('a.B')\nearly.get()\nprint(Queue('default').size())\n",
        tmp_path,
        first,
    )
    assert printed == "2\n"


POLL = "while not answers:\n    time.sleep(0.01)\n"
NEVER_SEEN = {
    "poll": (f"thread.start()\n{POLL}", "_PATIENCE"),
    "event": ("thread.start()\nasked.wait()\n", "_PATIENCE_WITH_WAIT"),
    "event loop": (
        "import asyncio\nasync def main():\n"
        "    await asyncio.get_running_loop().run_in_executor(None, ask)\nasyncio.run(main())\n",
        "_PATIENCE_WITH_WAIT",
    ),
}


@pytest.mark.parametrize(("wait", "patience"), NEVER_SEEN.values(), ids=NEVER_SEEN)
def test_a_thread_that_a_config_file_may_wait_for_is_told_so_after_some_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: str, patience: str
) -> None:
    monkeypatch.setattr(loading_module, patience, 0.2)
    (tmp_path / "mrq-config.py").write_text(
        "import threading, time\nfrom mrq_core.client.ambient import current_client\nanswers = []\n"
        "asked = threading.Event()\ndef ask():\n    try:\n        current_client()\n"
        "    except Exception as error:\n        answers.append(error)\n    asked.set()\n"
        f"thread = threading.Thread(target=ask)\n{wait}ANSWER = answers[0]\n"
    )
    answer = get_current_config()["ANSWER"]
    assert isinstance(answer, ConfigError)
    assert str(answer).startswith(
        "the client of this process is not ready: another thread has been loading the config file "
        "mrq-config.py for 0."
    )
    current_client().close()


def test_threads_wait_for_a_config_file_that_waits_for_threads_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on, and its own threads ask for nothing of mrq."""
    monkeypatch.setattr(loading_module, "_PATIENCE_WITH_WAIT", 0.2)
    (tmp_path / "mrq-config.py").write_text(
        "import threading, time\n"
        "for _ in range(8):\n    thread = threading.Thread(target=time.sleep, args=(0.1,))\n"
        "    thread.start()\n    thread.join()\n"
    )
    clients = set()
    threads = [threading.Thread(target=lambda: clients.add(current_client())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(clients) == 1
    clients.pop().close()


JOINS = {
    "thread": "thread = threading.Thread(target=ask)\nthread.start()\nthread.join()\n",
    "thread of a thread": (
        "def outer():\n    thread = threading.Thread(target=ask)\n    thread.start()\n    thread.join()\n"
        "thread = threading.Thread(target=outer)\nthread.start()\nthread.join()\n"
    ),
    "pool": "with ThreadPoolExecutor() as pool:\n    pool.submit(ask)\n",
    "result": "with ThreadPoolExecutor() as pool:\n    pool.submit(ask).result()\n",
    "map": "with ThreadPoolExecutor() as pool:\n    list(pool.map(lambda _: ask(), [1]))\n",
    "wait": "with ThreadPoolExecutor() as pool:\n    wait([pool.submit(ask)])\n",
    "as completed": "with ThreadPoolExecutor() as pool:\n    list(as_completed([pool.submit(ask)]))\n",
    "to_thread": "asyncio.run(asyncio.to_thread(ask))\n",
    "greenlet": "import gevent\ngevent.spawn(ask).get()\n",
    "greenlet of a greenlet": "import gevent\ngevent.spawn(lambda: gevent.spawn(ask).get()).get()\n",
    "raw greenlet": "import greenlet\ngreenlet.greenlet(ask).switch()\n",
}
QUEUE = "queue_job('a.B')"
COMMANDS = {
    "queues": ["queues"],  # in a process that gevent has not patched
    "run": ["run", "tasks.x", "--async"],
}


def asking(call: str) -> str:
    """The begin of a config file with a function that calls mrq, and prints its error."""
    return (
        f"{IMPORTS}import asyncio, threading\n"
        "from concurrent.futures import ThreadPoolExecutor, as_completed, wait\n"
        f"def ask():\n    try:\n        {call}\n"
        "    except Exception as error:\n        print(type(error).__name__, error)\n"
    )


@pytest.mark.parametrize(
    ("call", "join"),
    [*((call, JOINS["thread"]) for call in ASKING), *((QUEUE, join) for join in JOINS.values())],
)
@pytest.mark.parametrize("first", ["queue_job('a.B')", "configure()"])
def test_a_thread_that_the_config_file_waits_for_is_told_so(
    tmp_path: Path, first: str, call: str, join: str
) -> None:
    (tmp_path / "mrq-config.py").write_text(f"{asking(call)}{join}")
    printed = run(f"{first}\nprint('done')\n", tmp_path)
    *told, done = printed.splitlines()
    assert done == "done"
    assert len(told) == 1
    assert "was asked for while the config file mrq-config.py is being loaded" in told[0]


@pytest.mark.parametrize("join", ["greenlet", "greenlet of a greenlet", "raw greenlet"])
def test_a_greenlet_that_the_config_file_waits_for_is_told_so_where_the_program_uses_gevent(
    tmp_path: Path, join: str
) -> None:
    (tmp_path / "mrq-config.py").write_text(f"{asking(QUEUE)}{JOINS[join]}")
    told, number = run(
        "queue_job('a.B')\nprint(Queue('default').size())\n", tmp_path, "import gevent\ngevent.sleep(0)\n"
    ).splitlines()
    assert "was asked for while the config file mrq-config.py is being loaded" in told
    assert number == "1"


@pytest.mark.parametrize("join", ["thread of a thread", "result", "greenlet of a greenlet"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_thread_that_the_config_file_of_a_command_waits_for_is_told_so(
    tmp_path: Path, command: str, join: str
) -> None:
    (tmp_path / "config.py").write_text(
        f"import mrq_core.config.loading\nmrq_core.config.loading._PATIENCE_WITH_SPAWNER = 0.1\n"
        f"{asking(QUEUE)}{JOINS[join]}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mrq_core.cli", *COMMANDS[command], "--config", "config.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (told,) = (line for line in (done.stdout + done.stderr).splitlines() if "ConfigError" in line)
    assert told.startswith("ConfigError the client of this process "), told
    assert "the config file config.py" in told


def test_a_thread_whose_import_the_config_file_waits_for_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        f"{IMPORTS}import threading\nimporting.set()\nasked.wait()\ntry:\n    queue_job('a.B')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    (tmp_path / "mrq-config.py").write_text("import builtins\nbuiltins.asked.set()\nimport shop\n")
    printed = run(
        "import builtins, threading\n"
        "builtins.asked, builtins.importing = threading.Event(), threading.Event()\n"
        "other = threading.Thread(target=__import__, args=('shop',))\nother.start()\nimporting.wait()\n"
        "queue_job('a.B')\nother.join()\nprint(Queue('default').size())\n",
        tmp_path,
    )
    told, number = printed.splitlines()
    assert told.startswith("ConfigError the client of this process was asked for while the config file")
    assert number == "1"


PLUGIN_ASKING = (
    "queue_job('a.B')", "get_current_config()", "load_config()", "configure()", "Client(load_config())",
    "Plugins(Config())",
)  # fmt: skip
PLUGIN_IMPORTS = (
    "from mrq_core.client.client import Client\nfrom mrq_core.config.settings import Config\n"
    "from mrq_core.config.sources import load_config\nfrom mrq_core.plugins.manager import Plugins\n"
)
NOT_BEFORE = "and is not ready before that has ended: ask for it in a function that is called later"


@pytest.mark.parametrize("call", PLUGIN_ASKING)
def test_a_thread_that_a_plugin_waits_for_is_told_that_the_plugin_asked(tmp_path: Path, call: str) -> None:
    (tmp_path / "mrq-config.py").write_text("PLUGINS = ['other', 'shop']\n")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "shop.py").write_text(f"{PLUGIN_IMPORTS}{asking(call)}{JOINS['thread']}")
    told, done = run("configure()\nprint('done')\n", tmp_path).splitlines()
    begin, _, end = told.partition(" was asked for while the plugin shop (PLUGINS) is being loaded, ")
    assert begin in ("ConfigError the client of this process", "ConfigError the configuration"), told
    assert end.startswith(NOT_BEFORE)
    assert done == "done"


@pytest.mark.parametrize("command", [["run", "tasks.x", "--async"], ["queues"]])
@pytest.mark.parametrize(
    ("join", "call"),
    [("result", "load_config()"), ("result", QUEUE), ("to_thread", "Client(load_config())")],
)
def test_the_error_of_a_command_names_the_plugin_that_asked_once(
    tmp_path: Path, command: list[str], join: str, call: str
) -> None:
    (tmp_path / "mrq-config.py").write_text("PLUGINS = ['shop']\n")
    code = asking(call).replace("print(type(error).__name__, error)", "raise")
    (tmp_path / "shop.py").write_text(f"{PLUGIN_IMPORTS}{code}{JOINS[join]}")
    done = subprocess.run(
        [sys.executable, "-m", "mrq_core.cli", *command],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (said,) = done.stderr.splitlines()
    begin, wanted, end = said.partition(" was asked for while the plugin is being loaded, ")
    assert begin.startswith("mrq: the plugin shop (PLUGINS) cannot be loaded: ConfigError: the "), said
    assert wanted, said
    assert end.startswith(NOT_BEFORE)
    assert "config file" not in said
    assert said.count("shop") == 1


@pytest.mark.parametrize("call", ["configure()", "Client(load_config())"])
def test_a_plugin_that_makes_a_client_is_named_once(tmp_path: Path, call: str) -> None:
    """In its module, and in `mrq_driver`."""
    (tmp_path / "mrq-config.py").write_text("PLUGINS = ['shop']\n")
    program = "try:\n    queue_job('a.B')\nexcept Exception as error: print(error)\n"
    advice = "again: call configure in the program, or with plugins=[]\n"
    (tmp_path / "shop.py").write_text(f"{IMPORTS}{PLUGIN_IMPORTS}{call}\n")
    assert run(program, tmp_path) == (
        "the plugin shop (PLUGINS) cannot be loaded: ConfigError: it makes a client while it is loaded, and "
        f"that client would load it {advice}"
    )
    (tmp_path / "shop.py").write_text(f"{IMPORTS}{PLUGIN_IMPORTS}@hookimpl\ndef mrq_driver():\n    {call}\n")
    assert run(program, tmp_path) == (
        f"mrq_driver of the plugin shop failed: it makes a client, which would call it {advice}"
    )
    asked = f"{IMPORTS}{PLUGIN_IMPORTS}@hookimpl\ndef mrq_driver():\n    {QUEUE}\n"
    (tmp_path / "shop.py").write_text(asked)
    assert run(program, tmp_path).startswith(
        "mrq_driver of the plugin shop failed: ConfigError: the client of this process was asked for while "
        "the driver is being loaded, "
    )


def test_a_wait_for_another_thread_that_loads_code_is_no_failure_of_the_config_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading_module, "_PATIENCE", 0.2)
    (tmp_path / "mrq-config.py").write_text("")
    loads, end = threading.Event(), threading.Event()

    def load() -> None:
        with loading_module.loading(loading_module.Loading("the plugin shop (PLUGINS)", Config())):
            loads.set()
            end.wait(PATIENCE)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        assert loads.wait(PATIENCE)
        with pytest.raises(ConfigError) as raised:
            load_config()
    finally:
        end.set()
        thread.join(PATIENCE)
    assert str(raised.value).startswith(
        "the configuration is not ready: another thread has been loading the plugin shop (PLUGINS) for 0."
    )


def test_a_failed_first_call_leaves_nothing_behind(tmp_path: Path) -> None:
    config = tmp_path / "mrq-config.py"
    config.write_text("GREENLETS = 'many'\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="GREENLETS is 'many'"):
            queue_job("a.B")
    config.write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    with pytest.raises(KeyboardInterrupt):
        queue_job("a.B")
    config.write_text("")
    Job(queue_job("a.B")).fetch()
    current_client().close()


def test_handles_follow_the_client_of_the_process(tmp_path: Path) -> None:
    early = Queue("default")
    one = configure(broker=f"sqlite:///{tmp_path}/one.sqlite3")
    job = Job(queue_job("a.B"))
    assert early.size() == 1
    other = configure(broker=f"sqlite:///{tmp_path}/other.sqlite3")
    assert early.size() == 0
    assert Queue("default", client=one).size() == 1
    assert Job(job.id, client=one).fetch().path == "a.B"
    one.close()
    other.close()


def test_a_wrong_setting_of_configure_is_named_as_its_argument(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^BROKER_TIMEOUT is 'x' \(configure\(broker_timeout=\.\.\.\)\): expected"
    ):
        configure(broker_timeout="x")


def test_load_config_in_a_config_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mrq-config.py").write_text(
        "from mrq_core.config.sources import load_config\nload_config()\n"
    )
    with pytest.raises(ConfigError, match=r"failed, line 2: ConfigError: the configuration was asked for"):
        load_config()


@pytest.mark.parametrize("command", [["queues"], ["worker", "--burst", "--quiet"]])
@pytest.mark.parametrize("call", ["configure(broker='sqlite:///x.sqlite3')", "load_config()"])
def test_every_command_refuses_a_config_file_that_configures_the_process(
    tmp_path: Path, command: list[str], call: str
) -> None:
    """Like a program, also where the command line names the file."""
    (tmp_path / "config.py").write_text(f"{IMPORTS}from mrq_core.config.sources import load_config\n{call}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mrq_core.cli", *command, "--config", "config.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "failed, line 3: ConfigError: the configuration was asked for while" in done.stderr


def test_the_mark_of_loaded_code_keeps_no_greenlet() -> None:
    """A process dies of a segmentation fault if a collection finds a mark that holds the main greenlet of a
    thread that has ended."""
    code = """
import sys
import greenlet
from mrq_core.config.awaited import SpawnMark
before = sys.getrefcount(greenlet.getcurrent())
mark = SpawnMark()
mark.set()
mark.remove()
assert mark.spawner() is mark.greenlet is greenlet.getcurrent()
print(sys.getrefcount(greenlet.getcurrent()) - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


HOOKS = {
    "finder": "class F:\n    find_spec = staticmethod(lambda *names: call())\nsys.meta_path.insert(0, F)",
    "import": "real = builtins.__import__\nbuiltins.__import__ = lambda *a, **k: (call(), real(*a, **k))[1]",
    "audit": "sys.addaudithook(lambda event, values: event == 'import' and call())",
}
CALLING = """
import builtins, sys
import mrq_core
calling, errors = [], []
def call():
    if not calling and sys.modules.get("mrq_core.client.ambient"):
        calling.append(1)
        try:
            mrq_core.queue_job("a.B")
        except mrq_core.MrqError as error:
            errors.append(str(error))
        finally:
            calling.clear()
"""


@pytest.mark.parametrize("kind", sorted(HOOKS))
def test_a_hook_that_calls_the_client_amid_its_imports_gets_an_error(kind: str) -> None:
    program = f"{CALLING}{HOOKS[kind]}\nprint(len(mrq_core.queue_job('a.B')))\nprint('\\\\n'.join(errors))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    made, *errors = done.stdout.splitlines()
    assert made == "24"
    assert any("was asked for while" in error for error in errors)


def test_a_hook_that_makes_clients_without_end_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "mrq-config.py").write_text("GREENLETS = 2\nprint('loaded')\n")
    hook = "sys.addaudithook(lambda event, values: event == 'open' and call())"
    program = CALLING.replace("not calling and ", "") + f"{hook}\nprint(len(mrq_core.queue_job('a.B')))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(any('while it is made' in one for one in errors))"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines()[-2:] == ["24", "True"]
