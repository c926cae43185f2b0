import stat

import pytest

from lola.distributed.cluster import protect_token


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


def test_the_token_is_closed_to_others_and_its_folder_before_it_is_written(home):
    protect_token()
    assert mode(home / ".ray") == 0o700
    token = home / ".ray" / "auth_token"
    token.write_text("token")
    token.chmod(0o644)
    protect_token()
    assert mode(token) == 0o600


def test_an_open_folder_and_a_token_elsewhere_are_closed(home, monkeypatch):
    (home / ".ray").mkdir(mode=0o755)
    token = home / "elsewhere"
    token.write_text("token")
    token.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    protect_token()
    assert mode(home / ".ray") == 0o700
    assert mode(token) == 0o600


def test_what_is_closed_already_is_left_alone(home):
    (home / ".ray").mkdir(mode=0o500)
    protect_token()
    assert mode(home / ".ray") == 0o500


def test_a_home_that_is_none_is_no_error_of_ours(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("HOME", str(home / "file"))
    protect_token()
    assert [path.name for path in home.iterdir()] == ["file"]
