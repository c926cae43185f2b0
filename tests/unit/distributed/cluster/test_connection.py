import stat
from types import SimpleNamespace

import pytest
import ray

from lola.core.errors import StorageError
from lola.distributed.cluster import connection as cluster
from lola.distributed.cluster.connection import require_shared, restrict_token_permissions


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


def test_the_token_is_closed_to_others_and_its_folder_before_it_is_written(home):
    restrict_token_permissions()
    assert mode(home / ".ray") == 0o700
    token = home / ".ray" / "auth_token"
    token.write_text("token")
    token.chmod(0o644)
    restrict_token_permissions()
    assert mode(token) == 0o600


def test_an_open_folder_and_a_token_elsewhere_are_closed(home, monkeypatch):
    (home / ".ray").mkdir(mode=0o755)
    token = home / "elsewhere"
    token.write_text("token")
    token.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    restrict_token_permissions()
    assert mode(home / ".ray") == 0o700
    assert mode(token) == 0o600


def test_what_is_closed_already_is_left_alone(home):
    (home / ".ray").mkdir(mode=0o500)
    restrict_token_permissions()
    assert mode(home / ".ray") == 0o500


def test_a_home_that_is_none_is_no_error_of_ours(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("HOME", str(home / "file"))
    restrict_token_permissions()
    assert [path.name for path in home.iterdir()] == ["file"]


@pytest.fixture
def nodes(monkeypatch):
    """Nodes by the folders that they see, None of one that has left; a task runs as if on one of them."""
    seen = {}

    def get(answer):
        if answer is None:
            raise ray.exceptions.TaskUnschedulableError("its node is gone")
        return answer

    class Task:
        def __init__(self, node):
            self.node = node

        def remote(self, path):
            folder = seen[self.node]
            return folder and path.exists() and folder in path.parents

    monkeypatch.setattr(
        cluster,
        "ray",
        SimpleNamespace(
            nodes=lambda: [{"Alive": True, "NodeID": n, "NodeManagerAddress": n} for n in seen],
            get=get,
            exceptions=ray.exceptions,
        ),
    )
    monkeypatch.setattr(cluster, "NodeAffinitySchedulingStrategy", lambda node, soft: node)
    options = SimpleNamespace(options=lambda scheduling_strategy: Task(scheduling_strategy))
    monkeypatch.setattr(cluster, "_sees", options)
    return seen


def test_a_root_that_a_node_does_not_see_is_refused(nodes, tmp_path, memory_root):
    nodes |= {"a": tmp_path, "b": tmp_path, "gone": None}
    require_shared(tmp_path)
    nodes["c"] = tmp_path / "elsewhere"
    with pytest.raises(StorageError, match="is not seen by the nodes c; name a folder"):
        require_shared(tmp_path)
    require_shared(memory_root)
    assert not list(tmp_path.glob(".probe-*"))
