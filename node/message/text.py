"""A long text in parts that each fit one message. Pure."""

import orjson

from core.error import InvalidInput

MAX_TEXT_BYTES = 200_000
_PART_BYTES = 20_000  # two layers of NIP-44 with padding and base64 stay under 64 KiB (NIP-59)


def split(text: str) -> list[str]:
    """A text in parts that each fit one message, cut at line ends or spaces where there are any.

    Raises:
        InvalidInput: it is empty or over 200,000 bytes.
    """
    if not text.strip():
        raise InvalidInput("The message is empty.")
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise InvalidInput(f"The message is longer than {MAX_TEXT_BYTES} bytes.")
    parts: list[str] = []
    while text:
        end = _fitting(text)
        if end < len(text):
            cut = max(text.rfind("\n", 1, end), text.rfind(" ", 1, end))
            end = cut + 1 if cut > end // 2 else end
        parts.append(text[:end])
        text = text[end:]
    return parts


def _fitting(text: str) -> int:
    """How many characters of the text fit one part, as JSON writes them."""
    end = min(len(text), _PART_BYTES)
    while len(orjson.dumps(text[:end])) > _PART_BYTES:
        end = end * 3 // 4
    return max(end, 1)
