"""No notation of a refused address passes, and nothing else is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.core.guard import Guard, canonical_host, is_address

CLOSED = Guard()
DEVELOPMENT = Guard(["127.0.0.0/8", "::1/128"])

LOOPBACK_NOTATIONS = [
    "127.0.0.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7f.0.0.0x1",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.1",
    "127.0.1",
    "%31%32%37.0.0.1",
    "127%2e0%2E0%2e1",
    "１２７.0.0.1",  # noqa: RUF001  # fullwidth digits
    "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "127｡0｡0｡1",  # halfwidth ideographic dots
    "127.0.0.\u00ad1",
    "::ffff:127.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[2002:7f00:1::]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1%25eth0]",
]


@pytest.mark.parametrize("host", LOOPBACK_NOTATIONS)
def test_every_notation_of_a_loopback_is_refused_until_a_setting_opens_it(host: str):
    assert CLOSED.refuse_host(host) == "endpoint resolves to a loopback address: 127.0.0.1"
    assert DEVELOPMENT.refuse_host(host) is None


@pytest.mark.parametrize("host", ["::1", "[::1]", "[::1%25lo]", "[0::0:1]", "%5B%3A%3A1%5D"])
def test_the_ipv6_loopback_too(host: str):
    assert CLOSED.refuse_host(host) == "endpoint resolves to a loopback address: ::1"
    assert DEVELOPMENT.refuse_host(host) is None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "a.b.localhost", "x.localhost.", "loc%61lhost"]
)
def test_localhost_is_a_loopback_by_name(host: str):
    assert (CLOSED.refuse_host(host) or "").startswith("endpoint resolves to a loopback address: ")
    assert DEVELOPMENT.refuse_host(host) is None
    assert Guard(["127.0.0.1/32"]).refuse_host(host) is None
    assert Guard(["10.0.0.0/8"]).refuse_host(host) is not None


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", "an unspecified"),  # noqa: S104  # an address to refuse, not one to listen on
        ("0.1.2.3", "a reserved"),
        ("10.0.0.1", "a private"),
        ("172.16.0.1", "a private"),
        ("172.31.255.255", "a private"),
        ("192.168.1.1", "a private"),
        ("100.64.0.1", "a private"),
        ("100.127.255.255", "a private"),
        ("100.100.100.200", "a metadata"),
        ("169.254.0.1", "a metadata"),
        ("169.254.169.254", "a metadata"),
        ("168.63.129.16", "a metadata"),
        ("192.0.0.9", "a reserved"),
        ("192.0.2.1", "a reserved"),
        ("192.88.99.1", "a reserved"),
        ("198.18.0.1", "a reserved"),
        ("198.51.100.1", "a reserved"),
        ("203.0.113.1", "a reserved"),
        ("224.0.0.1", "a multicast"),
        ("240.0.0.1", "a reserved"),
        ("255.255.255.255", "a reserved"),
        ("::", "an unspecified"),
        ("fe80::1", "a link-local"),
        ("fe80::1%eth0", "a link-local"),
        ("fec0::1", "a reserved"),
        ("fc00::1", "a private"),
        ("fdff::1", "a private"),
        ("fd00:ec2::254", "a metadata"),
        ("fd20:ce::254", "a metadata"),
        ("ff02::1", "a multicast"),
        ("ff0e::1", "a multicast"),
        ("100::1", "a reserved"),
        ("5f00::1", "a reserved"),
        ("64:ff9b:1::7f00:1", "a reserved"),
        ("::ffff:0:7f00:1", "a reserved"),
        ("2001:0:808:808::", "a reserved"),
        ("2001:20::1", "a reserved"),
        ("2001:db8::1", "a reserved"),
        ("3fff::1", "a reserved"),
    ],
)
def test_addresses_that_are_not_globally_routed(address: str, kind: str):
    shown = address.partition("%")[0]
    assert CLOSED.refuse_address(address) == f"endpoint resolves to {kind} address: {shown}"
    assert CLOSED.refuse_host(address) == f"endpoint resolves to {kind} address: {shown}"


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_globally_routed_addresses_pass(address: str):
    assert CLOSED.refuse_address(address) is None
    assert CLOSED.refuse_host(address) is None


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "2001:0:a9fe:a9fe::",
        "fd00:ec2::254",
    ],
)
def test_no_setting_opens_a_metadata_service(address: str):
    wide_open = Guard(["0.0.0.0/0", "::/0", "169.254.0.0/16", "169.254.169.254/32", "fd00:ec2::254/128"])
    assert (wide_open.refuse_address(address) or "").startswith("endpoint resolves to a metadata address: ")
    assert wide_open.refuse_host(f"[{address}]" if ":" in address else address)


def test_a_setting_opens_its_network_and_no_other():
    guard = Guard(["10.1.0.0/16", "fd12::/16"])
    assert guard.refuse_address("10.1.2.3") is None
    assert guard.refuse_address("::ffff:10.1.2.3") is None
    assert guard.refuse_address("fd12::1") is None
    assert guard.refuse_address("10.2.0.1") == "endpoint resolves to a private address: 10.2.0.1"
    assert guard.refuse_address("fd13::1") == "endpoint resolves to a private address: fd13::1"


def test_opening_a_translator_does_not_open_what_lies_behind_it():
    guard = Guard(["64:ff9b::/96", "2002::/16", "::/96"])
    assert guard.refuse_address("64:ff9b::10.0.0.1") == "endpoint resolves to a private address: 10.0.0.1"
    assert guard.refuse_address("2002:a00:1::") == "endpoint resolves to a private address: 10.0.0.1"
    assert guard.refuse_address("::10.0.0.1") == "endpoint resolves to a private address: 10.0.0.1"


def test_what_is_never_to_be_reached_beats_what_a_setting_opens():
    guard = Guard(["127.0.0.0/8"], never=["127.0.0.1/32"])
    assert guard.refuse_address("127.0.0.1") is not None
    assert guard.refuse_address("127.0.0.2") is None


@pytest.mark.parametrize("network", ["10.0.0.1/8", "localhost", "", "10.0.0.0/33"])
def test_a_setting_that_is_no_network_is_an_error(network: str):
    with pytest.raises(ValueError, match=r"."):
        Guard([network])


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("example.com", "example.com"),
        ("Example.COM.", "example.com"),
        ("intranet", "intranet"),
        ("metadata.google.internal", "metadata.google.internal"),
        ("a_b-c.example", "a_b-c.example"),
        ("1.example", "1.example"),
        ("1e100.net", "1e100.net"),
        ("0x7f.example", "0x7f.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("b%C3%BCcher.example", "xn--bcher-kva.example"),
        ("notlocalhost", "notlocalhost"),
        ("localhost.example.com", "localhost.example.com"),
    ],
)
def test_names_pass_and_are_written_one_way(host: str, name: str):
    assert canonical_host(host) == name
    assert not is_address(name)
    assert CLOSED.refuse_host(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "a b",
        "a\nb",
        "a%00b",
        "a%0d%0ab",
        "a/b",
        "a%2Fb",
        "user%40host",
        "%2531%2532%2537.0.0.1",
        "%ff",
        "256.1.1.1",
        "1.2.3.4.5",
        "08.1.1.1",
        "4294967296",
        "0x100000000",
        "1..2",
        "foo.1",
        "[::1]x",
        "[fe80::1::2]",
        "[127.0.0.1:80]",
        "a" * 64 + ".example",
        "ü" * 70 + ".example",
        ".".join(["a" * 60] * 5),
        "9" * 5000,
    ],
)
def test_what_is_neither_a_name_nor_an_address_is_refused(host: str):
    assert (CLOSED.refuse_host(host) or "").startswith("endpoint host is neither a name nor an address: ")


@pytest.mark.parametrize("address", ["", "localhost", "127.1", "2130706433", "1.2.3.4/32"])
def test_a_resolver_must_answer_with_addresses(address: str):
    assert (CLOSED.refuse_address(address) or "").startswith("endpoint resolves to what is no address: ")


ipv4 = st.ip_addresses(v=4)
embeddings = st.sampled_from(
    [
        lambda a: IPv6Address((0xFFFF << 32) | int(a)),
        lambda a: IPv6Address((0x64FF9B << 96) | int(a)),
        lambda a: IPv6Address((0x2002 << 112) | (int(a) << 80) | 1),
    ]
)


@given(ipv4, embeddings)
def test_an_ipv4_address_is_judged_alike_inside_ipv6(address: IPv4Address, embed):
    assert CLOSED.refuse_address(str(embed(address))) == CLOSED.refuse_address(str(address))


def _write(number: int, base: str) -> str:
    return {"decimal": str(number), "hex": hex(number), "octal": "0" + oct(number)[2:]}[base]


@given(ipv4, st.integers(0, 3), st.lists(st.sampled_from(["decimal", "hex", "octal"]), min_size=4, max_size=4))
def test_every_way_to_write_an_ipv4_address_is_read_as_it(address: IPv4Address, dots: int, bases: list[str]):
    first, rest = address.packed[:dots], int.from_bytes(address.packed[dots:], "big")
    host = ".".join(_write(number, base) for number, base in zip([*first, rest], bases, strict=False))
    assert canonical_host(host) == str(address)


@given(st.ip_addresses(v=6))
def test_outside_2000_and_the_embeddings_no_ipv6_address_passes(address: IPv6Address):
    allowed = CLOSED.refuse_address(str(address)) is None
    embedding = int(address) >> 32 in (0, 0xFFFF, 0x64FF9B << 64)
    assert not allowed or embedding or int(address) >> 125 == 1


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-fA-Fx.:%\[\]]{1,30}", fullmatch=True))
def test_any_host_is_answered_and_reading_it_twice_changes_nothing(host: str):
    refusal = CLOSED.refuse_host(host)
    assert refusal is None or refusal.startswith("endpoint ")
    try:
        name = canonical_host(host)
    except ValueError:
        return
    assert name.isascii()
    assert canonical_host(name) == name
    assert CLOSED.refuse_host(name) == refusal
