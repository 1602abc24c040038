"""`Saver`: variables saved and restored by name, as ``tf.compat.v1.train.Saver`` does (formats 7.2, 7.3).

What differs from TensorFlow's on purpose stands in docs/reference/if-you-know-tf-train.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsInt

from openckpt.errors import ConflictError, UnsupportedError, Where, warn, with_article
from openckpt.formats.names import INDEX_SUFFIX, MANIFEST_NAME, parse_v1_shard_name, v1_shard_name
from openckpt.storage.disk import DISK
from openckpt.storage.writable import Durability, WritableStore
from openckpt.training.adapters import view_of
from openckpt.training.binding import Bound
from openckpt.training.byname import keys_of_names, live_variables, named_leaves, restore_bound
from openckpt.writing import SavedPath, remove_checkpoint, save
from openckpt.writing.manifests import encode_checkpoint_state, replace_manifest


class Saver:
    """Saves variables under names, and restores them.

        saver = openckpt.Saver({"dense/kernel": kernel, "dense/bias": bias})
        saver.save("run/model.ckpt", global_step=100)          # run/model.ckpt-100
        saver.restore("run/model.ckpt-100")

    Args:
        var_list: variables, arrays or numbers by name; or a list of variables that have names (Keras, TensorFlow). What cannot be
            changed in place, a number or a JAX array, is new in ``variables`` after a restore.
        max_to_keep: how many of the newest checkpoints stay; None or 0 keeps all, and the manifest names the newest only.
        keep_checkpoint_every_n_hours: one that is about to go is kept when it was saved that much later than the last one
            that was, or than this was made.
        pad_step_number: ``model.ckpt-00000100``.
        save_relative_paths: the manifest names checkpoints relative to its directory, so that it can be moved.
        durability: see `openckpt.save`.
        clock: seconds since 1970.
        store: where to write; the local disk when not given.

    Raises:
        ValueError: no variables, two of one name, or one without.
        UnsupportedError: something in the list is no one variable (``training.no-variable``).

    Attributes:
        variables: the variables by name.
    """

    def __init__(
        self,
        var_list: Mapping[str, object] | Sequence[object],
        *,
        max_to_keep: int | None = 5,
        keep_checkpoint_every_n_hours: float = 10000.0,
        pad_step_number: bool = False,
        save_relative_paths: bool = False,
        durability: Durability = "power-loss",
        clock: Callable[[], float] = time.time,
        store: WritableStore | None = None,
    ) -> None:
        if not var_list:
            raise ValueError("there are no variables to save")
        self.variables = var_list if isinstance(var_list, Mapping) else _by_name(var_list)
        live_variables(self.variables).release()  # raises what is wrong with them
        self._max_to_keep = max_to_keep or 0
        self._hours = keep_checkpoint_every_n_hours
        self._pad = pad_step_number
        self._relative = save_relative_paths
        self._durability: Durability = durability
        self._clock = clock
        self._store: WritableStore = DISK if store is None else store
        self._next_kept = clock() + keep_checkpoint_every_n_hours * 3600.0
        self._last: list[tuple[str, float]] = []

    # -- saving -------------------------------------------------------------------------------------------------------

    def save(
        self,
        save_path: str | os.PathLike[str],
        global_step: SupportsInt | str | None = None,
        latest_filename: str | None = None,
        write_state: bool = True,
    ) -> SavedPath:
        """Save every variable under ``SAVE_PATH``, or ``SAVE_PATH-<global_step>``, over what is there.

        Args:
            save_path: front of the name, or the name.
            global_step: a number, a variable that holds it, or the name of one of the saver's.
            latest_filename: name of the manifest, ``checkpoint`` when not given.
            write_state: list it in the manifest, and let the oldest go. Without it, it is never removed.

        Raises:
            ValueError: ``latest_filename`` is a path, or the checkpoint would have its name.
            UnsupportedError: a variable has no value yet (``training.no-value``), or none that a checkpoint holds.
            ConflictError: another program is saving it (``commit.locked``).
            OSError: the system refused; nothing has changed then.
        """
        manifest = MANIFEST_NAME if latest_filename is None else latest_filename
        if not manifest or os.path.split(manifest)[0]:
            raise ValueError(f"latest_filename is the name of a file in the checkpoint's directory, not {manifest!r}")
        path = os.fsdecode(save_path)
        if global_step is not None:
            step = self._step_of(global_step)
            path += f"-{step:08d}" if self._pad else f"-{step}"
        elif self._store.split(path)[1] == manifest:
            raise ValueError(f"the checkpoint {path!r} would have the name of the manifest")
        kept, going = self._recorded(path, self._clock())
        state = None
        if write_state:
            directory = self._store.split(path)[0]
            listed = [other for other, _ in kept] if self._max_to_keep else None
            state = encode_checkpoint_state(directory, path, listed, save_relative_paths=self._relative)
        saved = self._write(path, manifest, state)
        if write_state and self._max_to_keep:
            self._last = kept
            self._let_go(going)
        return saved

    def _step_of(self, given: SupportsInt | str) -> int:
        number: Any = given
        if isinstance(given, str):  # TensorFlow's names of values end with ":0"
            number = self.variables.get(given.removesuffix(":0"), given)
        return int(number)

    def _write(self, path: str, manifest: str, state: bytes | None) -> SavedPath:
        in_commit = state is not None and manifest == MANIFEST_NAME
        live = live_variables(self.variables, path)
        try:
            values: dict[str, Any] = {}
            for name, (_, leaf) in named_leaves(live).items():
                if leaf.spec() is None:
                    raise UnsupportedError("training.no-value", Where(path, name), "this variable has no value yet")
                values[name] = leaf.value()
            saved = save(
                path,
                values,
                overwrite=True,
                durability=self._durability,
                update_manifest=(lambda _: state or b"") if in_commit else False,
                store=self._store,
            )
        finally:
            live.release()
        if state is not None and not in_commit:
            directory = self._store.split(path)[0]
            replace_manifest(directory, state, name=manifest, durability=self._durability, store=self._store)
        return saved

    def _recorded(self, path: str, now: float) -> tuple[list[tuple[str, float]], tuple[str, float] | None]:
        """Return the list with a new checkpoint at its end, and what falls out of it."""
        # The same file under another spelling would go as the oldest when it is the newest.
        own = os.path.abspath(path)
        kept = [entry for entry in self._last if os.path.abspath(entry[0]) != own]
        kept.append((path, now))
        return (kept[1:], kept[0]) if len(kept) > self._max_to_keep > 0 else (kept, None)

    def _let_go(self, going: tuple[str, float] | None) -> None:
        if going is None:
            return
        path, saved_at = going
        if saved_at > self._next_kept:
            self._next_kept += self._hours * 3600.0
            return
        try:
            if not remove_checkpoint(path, durability=self._durability, store=self._store):
                self._last.insert(0, going)  # a reader has it open: it is the next to go
        except (OSError, ConflictError) as error:
            warn(f"the checkpoint {path!r} should go, and stays: {error}")

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def last_checkpoints(self) -> list[str]:
        """The checkpoints that are listed, oldest first."""
        return [path for path, _ in self._last]

    def set_last_checkpoints(self, last_checkpoints: Sequence[str]) -> None:
        """List these, oldest first; none of them is ever removed, as nobody knows their times."""
        self._last = [(path, float("inf")) for path in last_checkpoints]

    def set_last_checkpoints_with_time(self, last_checkpoints_with_time: Sequence[tuple[str, float]]) -> None:
        """List these, oldest first, each with its time in seconds since 1970."""
        self._last = [(path, float(saved_at)) for path, saved_at in last_checkpoints_with_time]

    def recover_last_checkpoints(self, checkpoint_paths: Sequence[str | os.PathLike[str]]) -> None:
        """List those of these that are there, with the times of their files: what a new program says after a restart."""
        found = []
        for path in map(os.fsdecode, checkpoint_paths):
            at = self._time_of(path)
            if at is not None:
                found.append((path, at))
        self._last = found

    def _time_of(self, path: str) -> float | None:
        pattern = parse_v1_shard_name(path)
        names = [path + INDEX_SUFFIX, path]
        if pattern is not None and pattern[1] is None:
            names.append(v1_shard_name(pattern[0], 0, pattern[2]))
        for name in names:
            stat = self._store.stat(name)
            if stat is not None:
                return stat.mtime_ns / 1e9
        return None

    # -- restoring ----------------------------------------------------------------------------------------------------

    def restore(self, save_path: str | os.PathLike[str], *, cast: bool = False) -> None:
        """Give every variable its stored value; everything is checked first, and nothing assigned unless all of it holds.

        Args:
            save_path: whatever `openckpt.open` takes: V1 and V2 checkpoints by key, object-based ones by the names of their
                variables, with a `CheckpointWarning`.
            cast: restore floats of other widths.

        Raises:
            ValueError: None, as ``latest_checkpoint`` gives where there is no checkpoint.
            PathNotFoundError, FormatError, OSError: as `openckpt.open`.
            NotFoundError: names that the checkpoint does not have (``training.missing-names``).
            MismatchError: other shapes or types (``training.mismatch``).
        """
        from openckpt.opening import open

        if save_path is None:
            raise ValueError("there is no checkpoint to restore: save_path is None")
        live = live_variables(self.variables)
        leaves = named_leaves(live)
        with open(save_path) as stored:
            keys = keys_of_names(stored, list(leaves))
            restore_bound(
                stored, live, [Bound(keys[name], node, leaf, 0) for name, (node, leaf) in leaves.items()], cast=cast
            )
        live.release()


def _by_name(variables: Sequence[object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for variable in variables:
        view = view_of(variable)
        name = view.leaves[0].full_name if view is not None and len(view.leaves) == 1 else ""
        if not name:
            raise ValueError(f"{with_article(type(variable).__name__)} has no name: give a dict from name to variable")
        if name in found:
            raise ValueError(f"two variables are called {name!r}")
        found[name] = variable
    return found
