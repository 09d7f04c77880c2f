"""The help desk's vocabulary: products and parts, problems and verbs, and fixed phrases.

A step fits if its part belongs to the product and its verb to the problem.
"""

PARTS: dict[str, tuple[str, ...]] = {
    "kettle": ("lid", "spout", "base", "filter"),
    "printer": ("tray", "cartridge", "roller", "cable"),
    "router": ("antenna", "port", "adapter", "switch"),
    "vacuum": ("bag", "hose", "brush", "wheel"),
    "oven": ("door", "rack", "fan", "burner"),
    "camera": ("lens", "battery", "shutter", "strap"),
    "bicycle": ("chain", "pedal", "saddle", "brake"),
    "speaker": ("cone", "knob", "amplifier", "jack"),
}
VERBS: dict[str, tuple[str, ...]] = {
    "leaks": ("seal", "tighten", "dry"),
    "overheats": ("cool", "clean", "unplug"),
    "rattles": ("fasten", "oil", "level"),
    "stalls": ("restart", "reset", "charge"),
    "smells": ("wash", "air", "scrub"),
    "flickers": ("replace", "test", "reconnect"),
}
# For half of the problems a wrong verb is popular, so that the most probable answer is wrong.
POPULAR_WRONG: dict[str, str] = {"leaks": "replace", "overheats": "restart", "smells": "oil"}

ANGRY = ("angry", "furious")
CALM = ("calm", "patient")
NAMES = ("maria", "john", "aisha", "pedro", "yuki", "anna", "omar", "lena")
DIGITS = tuple("0123456789")

CONNECTORS = ("first", "then", "next", "also", "finally")
APOLOGY = ("i", "am", "sorry", "for", "this")
PLAIN_OPENINGS = (("hello",), ("thank", "you", "for", "writing"))
RUDE_REMARKS = (("this", "is", "your", "fault"), ("read", "the", "manual"))
WARM_CLOSING = ("we", "wish", "you", "a", "good", "day")
PLAIN_CLOSINGS = (("bye",), ("that", "is", "all"))

PROMPT_WORDS = ("writes", ":", "order", "my", "is", "fine", "i", "am", ".")
ALL_VERBS = frozenset(verb for verbs in VERBS.values() for verb in verbs)
ALL_PARTS = frozenset(part for parts in PARTS.values() for part in parts)


def vocabulary() -> tuple[str, ...]:
    """Return all words of the world, each once, in a fixed order (about 110)."""
    groups = (
        tuple(PARTS), *PARTS.values(), tuple(VERBS), *VERBS.values(), ANGRY, CALM, NAMES, DIGITS,
        CONNECTORS, APOLOGY, *PLAIN_OPENINGS, *RUDE_REMARKS, WARM_CLOSING, *PLAIN_CLOSINGS,
        PROMPT_WORDS, ("please", "the"),
    )  # fmt: skip
    return tuple(dict.fromkeys(word for group in groups for word in group))
