"""Accounts, credentials and senders: what may be said of them, and what is kept."""

import pytest
from tests.desk.office import NOW_US

from postweir.desk import accounts, credentials, senders
from postweir.desk.ports import Missing, Misused
from postweir.identity import credentials as secrets


def test_an_account_is_added_shown_and_listed(office):
    """What `add` says is what `show` and `ls` say."""
    made = accounts.add(office, "acme", ["lifetime_s=3600", "networks=192.0.2.0/24, 2001:db8::/32"])

    assert made.settings["networks"] == ["192.0.2.0/24", "2001:db8::/32"]
    assert made.settings["lifetime_s"] == 3600
    assert accounts.show(office, "acme") == made
    assert accounts.ls(office) == [made]


def test_an_account_is_added_once(office):
    """A second one would take over the first one's mail."""
    accounts.add(office, "acme", [])

    with pytest.raises(Misused, match="already"):
        accounts.add(office, "acme", [])


@pytest.mark.parametrize("name", ["", "A", "-x", "a b", "a|b", "é", "x" * 65, ".", "a/../b", "a\n"])
def test_bad_names_are_refused(office, name):
    """A name goes into keys, files and logs."""
    with pytest.raises(Misused):
        accounts.add(office, name, [])


@pytest.mark.parametrize("name", ["a", "0", "acme-2.net_x", "x" * 64])
def test_good_names_are_taken(office, name):
    """As design says: [a-z0-9][a-z0-9._-]{0,63}."""
    assert accounts.add(office, name, []).account == name


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lifetime=1", "did you mean lifetime_s"),
        ("lifetime_s", "write lifetime_s=VALUE"),
        ("lifetime_s=x", "whole number"),
        ("lifetime_s=-1", "whole number"),
        ("lifetime_s=٣", "whole number"),
        ("lifetime_s=1", "from 60"),
        ("lifetime_s=99999999", "to 2592000"),
        ("sender_plain=yes", "true or false"),
        ("bare_newline=fix", "refuse, normalise"),
        ("networks=192.0.2.1/24", "host bits"),
        ("networks=here", "CIDR"),
        ("identity_order=sasl,sasl", "twice"),
        ("identity_order=x-autuser", "did you mean x-authuser"),
        ("return_path=nobody@", "no address"),
        ("suspended=true", "no setting"),
        ("name=x", "no setting"),
    ],
)
def test_wrong_settings_say_what_to_do(office, word, says):
    """Each fault is one line with the way out, and nothing is changed."""
    accounts.add(office, "acme", [])
    before = accounts.show(office, "acme")

    with pytest.raises(Misused) as caught:
        accounts.change(office, "acme", [word])
    assert says in str(caught.value)
    assert accounts.show(office, "acme") == before


def test_every_setting_can_be_set_to_its_default(office):
    """The words that `show` prints are words that `set` takes."""
    shown = accounts.add(office, "acme", []).settings
    for key, value in shown.items():
        if isinstance(value, bool):
            text = str(value).lower()
        else:
            text = ",".join(value) if isinstance(value, list) else str(value)
        accounts.change(office, "acme", [f"{key}={text}"])

    assert accounts.show(office, "acme").settings == shown


def test_domains_are_declared(office):
    """Each in lower case and once; what is no domain is said."""
    made = accounts.add(office, "acme", ["domains=Example.com, shop.example.com,example.com"])
    assert made.settings["domains"] == ["example.com", "shop.example.com"]
    with pytest.raises(Misused, match="no domain"):
        accounts.change(office, "acme", ["domains=not a domain"])
    assert accounts.change(office, "acme", ["domains="]).settings["domains"] == []


def test_a_network_is_one_accounts(office):
    """Mail from a network that two claim would land on the wrong bill."""
    accounts.add(office, "acme", ["networks=192.0.2.0/24"])
    with pytest.raises(Misused, match="acme"):
        accounts.add(office, "other", ["networks=192.0.2.0/24"])

    assert accounts.change(office, "acme", ["networks=192.0.2.0/24"])


def test_an_unknown_account_is_missing_with_a_hint(office):
    """A typing error is answered with what was meant."""
    accounts.add(office, "acme", [])

    with pytest.raises(Missing, match="did you mean acme"):
        accounts.show(office, "amce")


def test_suspending_is_kept_and_noted(office):
    """Who suspended whom, and why, can be read later."""
    accounts.add(office, "acme", [])
    assert accounts.suspend(office, "acme", True, "unpaid").suspended
    assert not accounts.suspend(office, "acme", False, "").suspended
    notes = [note for _, note in office.tables.notes(0, 10)]

    assert [n.verb for n in notes] == ["account add", "account suspend", "account resume"]
    assert (notes[1].by, notes[1].reason, notes[1].at_us) == ("op", "unpaid", NOW_US)


def test_a_credential_lets_in_until_it_is_revoked(office):
    """The secret that is shown once is the one that is checked; it is kept nowhere."""
    accounts.add(office, "acme", [])
    made = credentials.add(office, "acme")
    key = secrets.server_secret(office.settings.data)

    def lets_in():
        return secrets.check(accounts.known(office.tables), made.username, made.secret, key)

    assert lets_in().name == "acme"
    assert accounts.show(office, "acme").credentials == 1
    content = b"".join(p.read_bytes() for p in office.settings.data.iterdir() if p.is_file())
    assert made.secret.encode() not in content
    credentials.revoke(office, "acme", made.username, "lost")
    assert lets_in() is None
    assert credentials.ls(office, "acme")[0].revoked_us == NOW_US


def test_revoking_without_a_name_revokes_all_of_the_account_only(office):
    """A leaked host: everything of that customer, nothing of others."""
    for account in ("acme", "other"):
        accounts.add(office, account, [])
        credentials.add(office, account)
        credentials.add(office, account)
    done = credentials.revoke(office, "acme", "", "leak")

    assert len(done) == 2
    assert [bool(c.revoked_us) for c in credentials.ls(office, "acme")] == [True, True]
    assert [bool(c.revoked_us) for c in credentials.ls(office, "other")] == [False, False]
    with pytest.raises(Missing):
        credentials.revoke(office, "acme", "", "again")


def test_a_credential_of_another_account_is_not_revoked(office):
    """The account that was named is a safeguard."""
    for account in ("acme", "other"):
        accounts.add(office, account, [])
    made = credentials.add(office, "other")

    with pytest.raises(Missing):
        credentials.revoke(office, "acme", made.username, "x")


def test_a_credential_needs_its_account(office):
    """No credential of nobody."""
    with pytest.raises(Missing):
        credentials.add(office, "acme")


def test_a_sender_is_stopped_with_a_reason_and_allowed_again(office):
    """One sender of an account, not the account."""
    accounts.add(office, "acme", [])
    key = "acme|x-authuser|joe@example.com"
    with pytest.raises(Misused, match="--reason"):
        senders.decide(office, key, "stopped", "")
    stopped = senders.decide(office, key, "stopped", "spam run")
    assert (stopped.state, stopped.reason, stopped.by) == ("stopped", "spam run", "op")
    assert senders.ls(office, "acme", "stopped") == [stopped]
    assert senders.ls(office, "other", "") == []
    senders.decide(office, key, "allowed", "")

    assert senders.show(office, key).state == "allowed"


@pytest.mark.parametrize(
    "key", ["", "joe", "acme|joe", "acme|x-authuser|", "Acme|sasl|joe", "acme|salsa|joe",
            "acme|sasl|a\x1b[2J"],
)  # fmt: skip
def test_what_is_no_sender_is_refused(office, key):
    """A typing error must not look like a stopped sender."""
    accounts.add(office, "acme", [])

    with pytest.raises(Misused):
        senders.decide(office, key, "stopped", "x")


def test_a_sender_nobody_decided_about(office):
    """Nothing decided is an answer, not an error."""
    assert senders.show(office, "acme|sasl|joe").state == ""
