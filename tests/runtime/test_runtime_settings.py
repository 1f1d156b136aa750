"""Settings: one file, checked whole, with file, line and what to do."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postweir.runtime import bounds, frames, settings
from postweir.runtime.settings import RESTART, Settings, Wrong, differing, read

EXAMPLE = Path(__file__).parent.parent.parent / "etc" / "postweir.toml"


def wrong(tmp_path, text, environment=None):
    """Return the faults of a settings file."""
    path = tmp_path / "postweir.toml"
    path.write_text(text)
    with pytest.raises(Wrong) as caught:
        read(path, environment or {})
    return caught.value.faults


def test_the_example_is_the_defaults():
    """etc/postweir.toml shows every default as it is."""
    found = read(EXAMPLE, {})
    plain, default = frames.plain(found), frames.plain(Settings())
    assert plain["storage"].pop("data") == str(EXAMPLE.parent / "var")
    default["storage"].pop("data")

    assert plain == default


def test_the_example_mentions_every_key():
    """A setting that the example does not name is a setting nobody finds."""
    document = tomllib.loads(EXAMPLE.read_text())
    named = {f"{section}.{key}" for section, keys in document.items() for key in keys}
    plain = frames.plain(Settings())

    assert named == {f"{section}.{key}" for section, keys in plain.items() for key in keys}


def test_the_example_marks_what_needs_a_restart():
    """(restart) stands in the comment of exactly the keys that RESTART lists."""
    marked, section, comment = set(), "", ""
    for line in EXAMPLE.read_text().splitlines():
        if line.startswith("["):
            section = line[1:].partition("]")[0]
        elif line.startswith("#"):
            comment += line
        elif not line.strip():
            comment = ""
        elif "(restart)" in comment:
            marked.add(f"{section}.{line.partition(' =')[0]}")

    assert marked == set(RESTART)


@pytest.mark.parametrize(
    ("text", "where", "what", "do"),
    [
        ("[edge]\n\nhostnam = 'x'", ":3", "edge.hostnam is not known", "did you mean hostname?"),
        ("[egde]\nworkers = 1", ":1", "[egde] is not known", "did you mean edge?"),
        ("[edge]\nworkers = 0", ":2", "is 0", "at least 1"),
        ("[judge]\nrspamd = 'localhost:11333'", ":2", "is 'localhost:11333'", "write a URL"),
        ("[edge]\nworkers = 65", ":2", "is 65", "at most 64"),
        ("[edge]\ncommand_s = nan", ":2", "is nan", "a number"),
        ("[edge]\ncommand_s = inf", ":2", "is inf", "a number"),
        ("[edge]\ncommand_s = 1e9", ":2", "is 1000000000.0", "at most 2592000"),
        ("[spool]\nqueued_max = 99999999999999999", ":2", "is 9999", "at most 9007"),
        ("[spool]\njournal_days = 40000", ":2", "is 40000", "at most 36500"),
        ("[delivery]\nretry_s = [nan]", ":2", "nan", "above 0"),
        ("[edge]\nhostname = 'a b'", ":2", "'a b'", "relay.example.net"),
        ("[edge]\nhostname = ''", ":2", "is empty", "a value"),
        ('[edge]\nhelp_url = "x\\r\\nX: y"', ":2", "help_url", "printed"),
        ("[storage]\ndata = ''", ":2", "is empty", "a value"),
        ('[storage]\ndata = "a\\u0000b"', ":2", "storage.data", "printed"),
        ("[edge]\nworkers = '4'", ":2", "edge.workers", "etc/postweir.toml"),
        ("[edge]\nworkers = true", ":2", "edge.workers", "etc/postweir.toml"),
        ("[edge]\nlisten = ['localhost:25']", ":2", "'localhost:25'", "ADDRESS:PORT"),
        ("[edge]\nlisten = ['127.0.0.1']", ":2", "'127.0.0.1'", "ADDRESS:PORT"),
        ("[edge]\nlisten_tls = ['127.0.0.1:465']", ":2", "needs a certificate", "[tls]"),
        ("[tls]\nkey = 'a.key'", ":1", "only one", "both"),
        ("[tls]\ncertificate = 'a.crt'\nkey = 'a.key'", ":2", "cannot be read", "correct the name"),
        ("[log]\nlevel = 'loud'", ":2", "'loud'", "debug, info"),
        ("[delivery]\nroute = { 'a' = 'b' }", ":2", "'b'", "HOST:PORT"),
        ("[delivery]\nroute = { 'a' = 'b:70000' }", ":2", "'b:70000'", "HOST:PORT"),
        ("[delivery]\npools = { 'A b' = ['192.0.2.1'] }", ":2", "'A b'", "a-z"),
        ("[delivery]\npools = { '' = ['192.0.2.1'] }", ":2", "''", "a-z"),
        ("[delivery]\npools = { bulk = [] }", ":2", "0 addresses", "1 to"),
        ("[delivery]\npools = { bulk = ['relay'] }", ":2", "'relay'", "192.0.2.10"),
        ("[delivery]\npools = { bulk = ['127.0.0.1:25'] }", ":2", "127.0.0.1:25", "192.0.2.10"),
        ("[delivery]\npools = { bulk = ['fe80::1%lo'] }", ":2", "fe80", "192.0.2.10"),
        ("[delivery]\npools = { bulk = ['0.0.0.0'] }", ":2", "'0.0.0.0'", "192.0.2.10"),
        ("[delivery]\npools = { bulk = ['::1', '0::1'] }", ":2", "twice in bulk", "once"),
        ("[delivery]\npools = { bulk = '127.0.0.1' }", ":2", "delivery.pools", "etc/"),
        ("[delivery]\nretry_s = []", ":2", "()", "at least one"),
        ("[delivery]\nretry_s = [0]", ":2", "0", "above 0"),
        ("[storage]\ndata = '" + "x" * 200 + "'", ":2", "too long", "shorter"),
        ("edge = 3", ":1", "no table", "[edge]"),
        ("[spool]\n[edge\nworkers = 1", ":2", "not TOML", "correct"),
    ],
)
def test_faults_say_where_what_and_what_to_do(tmp_path, text, where, what, do):
    """Each kind of fault names file and line, the value, and the way out."""
    (fault,) = wrong(tmp_path, text)

    assert fault.where == f"{tmp_path / 'postweir.toml'}{where}"
    assert what in fault.what
    assert do in fault.do


def test_all_faults_are_told_at_once(tmp_path):
    """Nobody corrects a file ten times."""
    found = wrong(tmp_path, "[edge]\nworkers = 0\nnope = 1\n[spool]\nshards = 'x'\n[zebra]\n")

    assert len(found) == 4


def test_a_file_that_is_not_there_is_one_clear_fault(tmp_path):
    """No traceback, and the way to name another file."""
    with pytest.raises(Wrong, match="-c FILE"):
        read(tmp_path / "none.toml", {})


def test_a_file_of_another_user_is_one_clear_fault(tmp_path, monkeypatch):
    """Naming another file would not help."""
    path = tmp_path / "postweir.toml"
    path.write_text("")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(
        PermissionError(13, "Permission denied")))  # fmt: skip

    with pytest.raises(Wrong, match="as the user that owns it"):
        read(path, {})


def test_brackets_without_end_are_one_clear_fault(tmp_path):
    """The reader of TOML calls itself once a bracket."""
    (fault,) = wrong(tmp_path, "a = " + "[" * 5000)

    assert "nested" in fault.what


def test_a_file_that_is_not_text_is_one_clear_fault(tmp_path):
    """Bytes that are no UTF-8 are said to be that."""
    path = tmp_path / "postweir.toml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(Wrong, match="UTF-8"):
        read(path, {})


def test_the_environment_overrides(tmp_path):
    """POSTWEIR_SECTION__KEY is read as TOML, or else as text."""
    path = tmp_path / "postweir.toml"
    path.write_text("[edge]\nworkers = 1")
    environment = {
        "POSTWEIR_EDGE__WORKERS": "4",
        "POSTWEIR_EDGE__HOSTNAME": "relay.example",
        "POSTWEIR_EDGE__LISTEN": '["127.0.0.1:1"]',
        "POSTWEIR_FAULTS": "1",
    }
    found = read(path, environment)

    assert found.edge.workers == 4
    assert found.edge.hostname == "relay.example"
    assert found.edge.listen == ("127.0.0.1:1",)


def test_the_environment_is_checked_too(tmp_path):
    """A wrong variable is named as such, not blamed on the file."""
    found = wrong(tmp_path, "", {"POSTWEIR_EDGE__WORKERS": "0", "POSTWEIR_EGDE__X": "1"})

    assert {f.where for f in found} == {"POSTWEIR_EDGE__WORKERS", "POSTWEIR_EGDE__X"}


def test_paths_are_relative_to_the_file(tmp_path):
    """Wherever a command is started, it finds the same data."""
    path = tmp_path / "postweir.toml"
    path.write_text("[storage]\ndata = 'kept'")

    assert read(path, {}).data == tmp_path / "kept"


def test_the_hash_names_what_is_in_force(tmp_path):
    """The same settings have one name, others another; what differs can be told."""
    path = tmp_path / "postweir.toml"
    path.write_text("")
    first, again = read(path, {}), read(path, {})
    other = read(path, {"POSTWEIR_EDGE__RECIPIENTS_MAX": "7"})

    assert first.hash == again.hash != other.hash
    assert differing(first, other) == ["edge.recipients_max"]


def test_every_bound_is_of_a_setting_and_lets_its_default_pass():
    """A bound on a key that is not there would bind nothing."""
    plain = frames.plain(Settings())
    for limits, holds in ((bounds.AT_LEAST, lambda v, b: v >= b),
                          (bounds.AT_MOST, lambda v, b: v <= b)):  # fmt: skip
        for key, bound in limits.items():
            section, name = key.split(".")
            assert holds(plain[section][name], bound), key
    for key in (*RESTART, *bounds.CHOICES, *bounds.ADDRESSES, *bounds.HOSTNAMES):
        section, name = key.split(".")
        assert name in plain[section], key


@given(st.text(max_size=200))
def test_no_text_breaks_the_check(text):
    """Whatever stands in the file, the answer is settings or faults."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    try:
        settings.check(document, Path("x.toml"), text, {})
    except Wrong as told:
        faults = told.faults
        assert len(faults) > 0
