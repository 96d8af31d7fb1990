"""What the tests of wrong calls look for in the answer."""

QUICK = ("--space", "quickstart")


def wants(found: tuple[int, str], code: int, *phrases: str) -> None:
    assert found[0] == code, found[1]
    assert "error: " in found[1]
    for phrase in phrases:
        assert phrase in found[1], found[1]
