"""What must be true of a mirror after every run, whatever the night was like, and after the last of them.

What is wrong is kept as a sentence, not raised: a year tells of all that went wrong in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from fakes.calendar import Night, Trouble
from fakes.figures import Ran, Year
from fakes.held import Files, Row, last_walks, ledger_rows
from fakes.mirroring import sums_pass
from fakes.world import Kept, World, sha256_of

_DAY = timedelta(days=1)
#: A day of overlap more than the setting has: the archive's days begin at another hour than the server's clock.
_OVERLAP = timedelta(days=2) + _DAY
_WALK_EVERY = 7 * _DAY
_OF_ONE_COLLECTION = (Trouble.NONSENSE, Trouble.CUT, Trouble.NO_ROWS, Trouble.SHORT)


class Watch:
    """Looks at one mirror after each of its runs."""

    def __init__(self, root: Path, world: World, year: Year, on_withdrawn: str, say: Callable[[str], None]) -> None:
        self.root = root
        self.world = world
        self.year = year
        #: When it is, and what the run's report told: for the sentences.
        self.where = ""
        self.findings = ""
        self._on_withdrawn = on_withdrawn
        self._say = say
        self._files = Files(root)
        self._retired = Files(root / ".mirror" / "retired")
        self._quarantine = Files(root / ".mirror" / "quarantine")
        self._tree: dict[str, str] = {}
        self._rows: dict[str, Row] = {}
        #: Start of the last run that brought a collection up to date, and of the last that walked it whole; and of
        #: one that did and was not told everything.
        self._current: dict[str, datetime] = {}
        self._walked: dict[str, datetime] = {}
        self._lied_to: dict[str, datetime | None] = {}
        self._seen_in_tree: set[str] = set()
        self._stale: set[str] = set()

    def quiet(self, night: Night) -> set[str]:
        """Collections in which a run of this night has nothing to find."""
        moved = {step.collection for _, step in night.during}
        # What an earlier run left to do, or has still to be sure of.
        moved |= {
            self.world.series[uid].collection
            for uid, (state, presence, _) in self._rows.items()
            if state != "complete" or presence == "missing"
        }
        return {c for c in self._current if self._is_quiet(c)} - moved

    def _is_quiet(self, collection: str) -> bool:
        """Nothing happened that the since-calls could still tell of, or that the last good run did not see."""
        last = self.world.last_step.get(collection)
        return last is None or last < self._current[collection] - _OVERLAP

    def after(self, night: Night, at: datetime, ran: Ran) -> None:
        """A run of this night that began at that moment has ended."""
        tree = self._files.scan()
        self._check_bytes(tree)
        rows = ledger_rows(self.root)
        self._check_ledger(rows, tree, ran)
        if not ran.killed:
            self._check_exit(night, ran, rows)
            self._check_cost(ran)
            self._check_current(night, at, ran, tree)
        self._tree = tree
        self._rows = rows

    def _check_bytes(self, tree: dict[str, str]) -> None:
        """Every file is some version of one instance; nothing that is shown has vanished; what left is retired.

        What a run brought that was cut off before it judged the series may be set aside: nobody knows whether it was
        damaged on its way.
        """
        now = Counter[str]()
        for path, digest in tree.items():
            uid = self.world.bodies.get(digest)
            if uid is None:
                self.blame(f"{path}: the archive never had these bytes")
            else:
                now[uid] += 1
        for uid, number in now.items():
            if number > 1:
                self.blame(f"{uid} lies in the tree {number} times")
        new = set(tree.values()) - self._seen_in_tree
        self.year.needed += len(new)
        self._seen_in_tree |= new
        retired, aside = ({*files.scan().values()} for files in (self._retired, self._quarantine))
        there = {*tree.values()}
        shown = self.world.expected().keys()
        for path, digest in self._tree.items():
            uid = self.world.bodies.get(digest, "")
            kept = self.world.series.get(uid.rpartition(".")[0])
            state = self._rows[kept.series][0] if kept is not None and kept.series in self._rows else ""
            if state != "complete" and digest in aside:
                continue
            if uid in shown and uid not in now:
                self.blame(f"{uid}: the archive shows it, and it vanished from the tree", uid)
            deleted = self._on_withdrawn == "delete" and kept is not None and not kept.shown
            if not (digest in there or digest in retired or deleted):
                self.blame(f"{path} ({uid}): its bytes left the tree and are not retired", uid)

    def _check_ledger(self, rows: dict[str, Row], tree: dict[str, str], ran: Ran) -> None:
        """A complete series is something that the archive showed, and its files are what its rows say."""
        for uid, (state, presence, instances) in rows.items():
            left = presence == "withdrawn" and self._on_withdrawn != "keep"
            if left and instances and not ran.killed:
                self.blame(f"series {uid} is withdrawn, and {instances[0][1]} is still held", uid)
            elif state == "complete" and not left:
                content = frozenset((sop, digest) for sop, _, digest in instances)
                if content not in self.world.shown[uid]:
                    self.blame(f"series {uid} is complete and is nothing that the archive ever showed", uid)
                gone = [path for _, path, digest in instances if tree.get(path) != digest]
                if gone:
                    self.blame(f"series {uid} is complete, but {gone[0]} is not what its row says", uid)
            kept = self.world.series.get(uid)
            before = self._rows[uid][1] if uid in self._rows else ""
            if presence == "withdrawn" != before and kept is not None and kept.shown:
                self.blame(f"series {uid} was withdrawn though the archive shows it", uid)

    def _check_exit(self, night: Night, ran: Ran, rows: dict[str, Row]) -> None:
        shrunk = any(kept.shrunk for kept in self.world.series.values())
        # What was hidden before it was whole is tried again until a walk tells that it is not there.
        cut_off = any(
            state != "complete" and uid in self.world.series and not self.world.series[uid].shown
            for uid, (state, *_) in rows.items()
        )
        good: set[int] = {0, 3} if night.during or night.trouble or shrunk or cut_off else {0}
        if night.trouble in (Trouble.REFUSED, Trouble.DOWN):
            good = {5}
        elif night.trouble is Trouble.DOWN_LATER:
            good = {0, 3, 5}
        if ran.exit_code not in good:
            wanted = " or ".join(map(str, sorted(good)))
            self.blame(f"exit code {ran.exit_code}, not {wanted} ({self.findings})")

    def _check_cost(self, ran: Ran) -> None:
        for collection in ran.quiet - ran.walked:
            if ran.requests[collection] > 2 and ran.exit_code == 0:
                calls = Counter(c for c, p in self.world.archive.requests if self.world.collection_of(p) == collection)
                self.blame(f"{collection}: nothing new, and {ran.requests[collection]} requests ({dict(calls)})")

    def _check_current(self, night: Night, at: datetime, ran: Ran, tree: dict[str, str]) -> None:
        """What the run could know of is in the tree."""
        if ran.exit_code not in (0, 3) or night.trouble is Trouble.DOWN_LATER:
            return
        in_tree = self._by_series(tree)
        whole = last_walks(self.root)
        if night.trouble is Trouble.SHORT:
            self._lied_to[night.troubled] = whole.get(night.troubled)
        doubtful = {step.series for _, step in night.during}
        if night.trouble in (Trouble.UNFETCHABLE, Trouble.MISCOUNT):
            doubtful |= {step.series for step in night.steps}
        for collection in {kept.collection for kept in self.world.series.values()}:
            if night.trouble in _OF_ONE_COLLECTION and night.troubled == collection:
                continue
            self._current[collection] = at
            self._check_walk(collection, at, whole.get(collection))
        for uid, kept in self.world.series.items():
            if uid in doubtful or self._current.get(kept.collection) != at or not kept.shown:
                continue
            if self._must_be_known(kept):
                # That an instance is not there any more must be seen by two runs.
                first = kept.shrunk
                kept.shrunk = False
                self._check_series(kept, in_tree, more=first)

    def _check_walk(self, collection: str, at: datetime, last: datetime | None) -> None:
        """A collection is walked whole at least every so often. What a walk saw is known since then."""
        if last is not None and last != self._lied_to.get(collection):
            self._walked[collection] = last
        shown = any(kept.shown for kept in self.world.series.values() if kept.collection == collection)
        if shown and (last is None or at - last > _WALK_EVERY + _DAY):
            self.blame(f"{collection}: no whole walk since {last}")

    def _must_be_known(self, kept: Kept) -> bool:
        assert kept.touched_at is not None
        known = [moment for moment in (kept.dated_at, self._walked.get(kept.collection)) if moment is not None]
        return bool(known) and max(known) >= kept.touched_at

    def _by_series(self, tree: dict[str, str]) -> dict[str, dict[str, str]]:
        """SeriesInstanceUID -> SOPInstanceUID -> SHA-256 of what lies in the tree."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for digest in tree.values():
            if uid := self.world.bodies.get(digest):
                found[uid.rpartition(".")[0]][uid] = digest
        return found

    def _check_series(self, kept: Kept, in_tree: dict[str, dict[str, str]], *, more: bool = False) -> None:
        """It is what the archive shows; `more`: what it showed before may be there besides."""
        self.year.compared += 1
        ours = in_tree.get(kept.series, {})
        theirs = {uid: sha256_of(body) for uid, body in kept.bodies.items()}
        if more:
            ours = {uid: digest for uid, digest in ours.items() if uid in theirs}
        if ours == theirs:
            self._stale.discard(kept.series)
        elif kept.series not in self._stale:
            # Told once, until it is right again.
            self._stale.add(kept.series)
            lacks = sorted(theirs.keys() - ours.keys())
            many = sorted(ours.keys() - theirs.keys())
            old = sorted(uid for uid in ours.keys() & theirs.keys() if ours[uid] != theirs[uid])
            self.blame(
                f"series {kept.series} ({kept.collection}) is not what the archive shows: {len(lacks)} lacking,"
                f" {len(many)} too many, {len(old)} of other bytes",
                kept.series,
            )

    def blame(self, said: str, uid: str = "") -> None:
        """Keep a sentence about what is wrong; of a series or an instance, with its history."""
        series = uid if uid in self.world.series else uid.rpartition(".")[0]
        history = f" [{self.world.history(series)}]" if series in self.world.series else ""
        line = f"{self.where}: {said}{history}"
        self.year.wrong.append(line)
        self._say(f"WRONG {line}")

    def at_end(self) -> None:
        """After the last night: the tree is what the archive shows."""
        self._stale.clear()
        self.compare_whole()
        rows = ledger_rows(self.root)
        for uid, kept in self.world.series.items():
            presence = rows[uid][1] if uid in rows else "(unknown)"
            # What was hidden for a short time only may never have been seen.
            if presence != ("present" if kept.shown else "withdrawn") and (kept.shown or uid in rows):
                self.blame(f"series {uid} ({kept.collection}) is {presence}", uid)
        if not sums_pass(self.root):
            self.blame("SHA256SUMS does not pass")

    def compare_whole(self) -> None:
        """Byte for byte, read anew."""
        tree = Files(self.root).scan()
        in_tree = self._by_series(tree)
        for kept in self.world.series.values():
            if kept.shown:
                self._check_series(kept, in_tree)
        for path, digest in tree.items():
            uid = self.world.bodies.get(digest, "")
            kept_series = self.world.series.get(uid.rpartition(".")[0])
            if kept_series is None:
                self.blame(f"{path}: nobody's")
            elif not kept_series.shown and self._on_withdrawn != "keep":
                self.blame(f"{path}: of a withdrawn series", uid)
