"""Whether the lines of a ledger follow from each other, and rounds from rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from brats_fl.ledger import Line, digests_of_fields, hash_of_fields


def broken_links(lines: Sequence[Line]) -> Iterator[str]:
    """What is wrong with the chain: the line, and the fields that are not what the next line says they were."""
    for number, line in enumerate(lines, 1):
        if number == 1:
            if line.previous or line.before:
                yield "line 1: previous must be empty: what was before it is missing"
            continue
        digests = digests_of_fields(lines[number - 2])
        if line.previous == hash_of_fields(digests):
            if line.before and line.before != digests:
                yield f"line {number}: before is not what its previous is the hash of"
            continue
        if line.before and hash_of_fields(line.before) == line.previous:
            names = {*digests, *line.before}
            changed = sorted(name for name in names if digests.get(name) != line.before.get(name))
            yield f"line {number - 1}: {', '.join(changed)} changed after line {number} was written"
        else:
            yield f"line {number}: previous is not the hash of line {number - 1}: one was changed, added or taken out"


def broken_order(lines: Sequence[Line]) -> Iterator[str]:
    """What is wrong with the kinds of lines, the numbers of the rounds, and the models that go from part to part."""
    if not lines or lines[0].kind != "start":
        yield "line 1: kind must be start: the beginning is missing"
        return
    if lines[-1].kind != "seal":
        yield f"line {len(lines)}: kind must be seal: the lead's seal is missing, so lines may be missing before it"
    model, expected = "", 0
    for number, line in enumerate(lines, 1):
        if line.kind == "seal" and number < len(lines):
            yield f"line {number}: kind must not be seal before the last line"
        elif line.kind == "start":
            begun = line.settings.get("start_round", 0)
            if begun != expected:
                yield f"line {number}: settings: start_round is {begun}, {expected} rounds are in front of it"
            if model and line.model != model:
                yield f"line {number}: model is not the one that the rounds before it ended with"
            model = line.model
        elif line.kind == "round":
            if line.round != expected:
                yield f"line {number}: round is {line.round}, expected {expected}"
            expected, model = (line.round or 0) + 1, line.model
