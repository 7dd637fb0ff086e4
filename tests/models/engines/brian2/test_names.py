"""Names become distinct identifiers."""

from actrelax.models.engines.brian2.names import identifiers


def test_names_stay_apart():
    names = ["a_3", "a", "a-", "a--", "1 pre", "é", "a->b", "a=>b", "_", "xi", "xi->a", "xing"]
    words = list(identifiers(names).values())
    assert len(set(words)) == len(words)
    assert not any(f"{word}_".startswith("xi_") for word in words)
    assert all(word.isidentifier() and word.isascii() and not word.startswith("_") for word in words)
