"""Checks of overridden methods: a subclass overrides no method that drivers do not call."""

from __future__ import annotations


def forbid(cls: type, base: type, name: str, instead: str) -> None:
    """Raise TypeError if `cls` overrides `name`, which `base` composes of the methods that drivers call."""
    if getattr(cls, name) is not getattr(base, name):
        raise TypeError(
            f"{cls.__name__} overrides `{name}`, which {base.__name__} composes of other methods. Drivers call those "
            f"and would ignore it: {instead}"
        )


def forbid_ignored(cls: type, base: type, part: str, whole: str) -> None:
    """Raise TypeError if `cls` overrides `part` and inherits a `whole` that does not call it."""
    order = [next(i for i, c in enumerate(cls.__mro__) if name in c.__dict__) for name in (part, whole)]
    owner = cls.__mro__[order[1]]
    if order[0] < order[1] and owner is not base:
        raise TypeError(
            f"{cls.__name__} overrides `{part}`, but {owner.__name__} defines its own `{whole}`, which would ignore "
            f"it. Override `{whole}`."
        )


def forbid_alone(cls: type, first: str, second: str, why: str) -> None:
    """Raise TypeError if `cls` overrides one of two methods and inherits the other from a class that has both."""
    abstract = lambda base, name: getattr(getattr(base, name, None), "__isabstractmethod__", not hasattr(base, name))
    base = next((b for b in cls.__mro__[1:] if not abstract(b, first) and not abstract(b, second)), None)
    if base is None:
        return
    own = [name for name in (first, second) if getattr(cls, name) is not getattr(base, name)]
    if len(own) == 1:
        other = second if own == [first] else first
        raise TypeError(
            f"{cls.__name__} overrides `{own[0]}` and inherits `{other}` from {base.__name__}: {why} Override both."
        )
