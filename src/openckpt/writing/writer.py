"""`CheckpointWriter`: a checkpoint written tensor by tensor, in the dual layout or in TensorFlow's.

Nothing is visible under the prefix before everything is written and safe: see `openckpt.storage.commit`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType

from openckpt.errors import CheckpointError, ConflictError, NotFoundError, UnsupportedError, Where, shown
from openckpt.formats.collecting import collection_held
from openckpt.formats.names import INDEX_SUFFIX, MANIFEST_NAME, step_of
from openckpt.formats.spec import TensorSpec
from openckpt.storage.commit import Commit
from openckpt.storage.disk import DISK
from openckpt.storage.writable import Durability, WritableStore
from openckpt.writing.announced import Announced, check_specs, check_value
from openckpt.writing.checking import check_index
from openckpt.writing.filling import Filling, Layout
from openckpt.writing.keys import decode_key, encode_key, split_prefix
from openckpt.writing.linking import LinkedFile, Placed
from openckpt.writing.manifests import ManifestUpdate, advanced_manifest, check_name
from openckpt.writing.pieces import is_part
from openckpt.writing.place import Taken, look_at, record_of, settle_dead, shard_names
from openckpt.writing.result import SavedPath
from openckpt.writing.sharding import Sharding
from openckpt.writing.values import Stored, Value

_INDEX_BYTES = 256  # of an entry with its key, for the estimate of free space


class CheckpointWriter:
    """Writes one checkpoint; a context manager. Made by `openckpt.create`. For one thread at a time.

    ``result`` is the `SavedPath` once the block has ended, ``files`` are the paths of its data files. An error in the block,
    or a tensor that was announced and never came, leaves everything as it was.
    """

    def __init__(
        self,
        prefix: str,
        *,
        announced: Announced | None,
        layout: Layout,
        sharding: Sharding | None,
        overwrite: bool,
        durability: Durability,
        update_manifest: bool | ManifestUpdate,
        store: WritableStore | None,
        linked: Sequence[LinkedFile] = (),
    ) -> None:
        if layout not in ("dual", "tensorflow"):
            raise ValueError(f"layout is 'dual' or 'tensorflow', not {layout!r}")
        if durability not in ("power-loss", "process-crash"):
            raise ValueError(f"durability is 'power-loss' or 'process-crash', not {durability!r}")
        if announced is None and (layout == "dual" or sharding is not None):
            raise ValueError("the dual layout and sharding need the specs of all tensors first")
        self.prefix = prefix
        self._store: WritableStore = DISK if store is None else store
        directory, self._stem = split_prefix(self._store, prefix)
        if update_manifest:
            check_name(self._stem, prefix)
        self._commit = Commit(self._store, directory, self._stem, durability=durability, settle=settle_dead)
        self._announced = announced
        self._sharding = sharding
        self._overwrite = overwrite
        self._update_manifest = update_manifest
        self._linked = linked  # numbered behind the data files that are written
        self._taken = Taken(False, {})
        self._filling = Filling(prefix, layout, self._commit.create, linked)
        self._seen: set[bytes] = set()
        self._process: int | None = None  # that writes it, while the block runs
        self._failed: BaseException | None = None
        self.result: SavedPath | None = None
        self.files: list[str] = []

    def __enter__(self) -> CheckpointWriter:
        if self._process is not None or self.result is not None:
            raise ValueError("a writer writes one checkpoint: create another one")
        with ExitStack() as stack:
            stack.enter_context(self._commit)
            with collection_held():
                self._begin()
            stack.pop_all()
        self._process = os.getpid()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process != os.getpid():  # a fork leaves the block: nothing here is its own
            if error is None:
                self._check_open()
            return
        try:
            if error is None:
                self._finish()
        except BaseException as failure:
            self._end(failure)
            raise
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._process = None
        try:
            self._filling.close()
        finally:
            self._commit.__exit__(None if error is None else type(error), error, None)

    def _check_open(self) -> None:
        if self._process is None:
            raise ValueError("tensors are added inside the writer's `with` block")
        if self._process != os.getpid():
            raise ConflictError("commit.locked", self.prefix, "the process of which this is a fork is saving it")

    # -- before the first tensor --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._taken = look_at(self._store, self._commit.directory, self._stem)
        if self._taken.index and not self._overwrite:
            raise ConflictError("commit.exists", self.prefix, "a checkpoint of this name is there already")
        specs: dict[bytes, TensorSpec] = {}
        if self._announced is not None:
            specs = check_specs(self._announced.specs, self.prefix)
            nbytes = sum(spec.nbytes or 0 for spec in specs.values())
            self._commit.require_space(nbytes + _INDEX_BYTES * len(specs))
        self._filling.lay_out(self._announced, specs, self._sharding)

    @property
    def order(self) -> list[str]:
        """The announced keys in the order in which their bytes lie in the files: the quickest order to add them in."""
        return self._filling.order

    # -- tensors ------------------------------------------------------------------------------------------------------

    def add(self, key: str | bytes, value: Value, *, dtype: str | None = None) -> None:
        """Write one tensor.

        Args:
            key: its key.
            value: an array, a number, text, bytes, an array of text or bytes, `Variant` or an array of them; where nothing
                was announced also `Sliced`. It may be changed as soon as this returns.
            dtype: TensorFlow's name where the array's own type does not tell it (quantised types).

        Raises:
            UnsupportedError: no checkpoint holds this key or value (``writing.*``).
            MismatchError: it is not what its spec announced (``writing.wrong-dtype``, ``writing.wrong-shape``, ``writing.wrong-size``).
            NotFoundError: its spec was not announced (``writing.foreign-key``).
            OSError: the system refused; the checkpoint is then abandoned.
        """
        self._check_open()
        raw = encode_key(key, self.prefix)
        where = Where(self.prefix, decode_key(raw))
        if raw in self._seen:
            raise UnsupportedError("writing.duplicate-key", where, "this key was added before")
        try:
            if self._announced is not None:
                check_value(value, dtype, self._filling.specs.get(raw), where)
                self._filling.put(raw, decode_key(raw), value)
            else:
                self._filling.append(raw, value, dtype, where)
            self._seen.add(raw)
            self._filling.flush()
        except CheckpointError:
            raise  # before a byte of it was written: the caller may go on without this tensor
        except BaseException as error:
            self._failed = error
            raise

    def add_many(self, values: Mapping[str, Value | Stored]) -> None:
        """Write several announced tensors; all may be changed as soon as this returns.

        Args:
            values: key -> value as `add` takes it, or `Stored` bytes of a tensor that is announced whole: then nothing is
                made or checked again but their number.

        Raises:
            CheckpointError, OSError: as `add`.
        """
        self._check_open()
        try:
            for key, value in values.items():
                raw = encode_key(key, self.prefix)
                where = Where(self.prefix, key)
                if raw in self._seen:
                    raise UnsupportedError("writing.duplicate-key", where, "this key was added before")
                if raw not in self._filling.specs or type(value) is not Stored:
                    check_value(value, None, self._filling.specs.get(raw), where)
                self._filling.put(raw, key, value)
                self._seen.add(raw)
            self._filling.flush()
        except BaseException as error:
            self._failed = error
            raise

    def put_all(self, values: Mapping[str, Value | Stored]) -> None:
        """Write every announced tensor, each as its spec says; all must stay as they are until the block ends."""
        self._filling.put_all(values)
        self._seen = set(self._filling.specs)

    def placed(self) -> dict[str, Placed]:
        """Return where every tensor lies that is stored whole and whose size its dtype and shape settle, once all are written."""
        return self._filling.placed()

    def payload(self, shard: int) -> int:
        """Return the bytes of all tensors in one data file, once all are written."""
        return self._filling.payload(shard)

    # -- after the last tensor ----------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self._failed is not None:
            raise self._failed  # the caller did not let it out of the block; its bytes are missing all the same
        missing = self._filling.specs.keys() - self._seen
        if missing:
            names = sorted(map(decode_key, missing))
            raise NotFoundError("writing.missing-keys", self.prefix, f"{len(names)} tensors never came: {shown(names)}")
        filling, commit = self._filling, self._commit
        if not len(filling) and not is_part(self.prefix):  # of several writers, one may have nothing to save
            raise UnsupportedError("writing.no-tensors", self.prefix, "there is no tensor to save")
        written, links = len(filling.files), len(self._linked)
        count = self._taken.free_count(written + links)
        table = filling.encode_index(count)  # beside the last bytes on their way
        filling.finish(count)
        files = filling.files
        names = shard_names(self._stem, count)
        shared = {file.path: name for file, name in zip(self._linked, names[written:], strict=False)}
        own = [*names[:written], *names[written + links :]]
        index = commit.put(table)
        commit.publish(dict(zip(files, own, strict=True)), linked=shared, record=record_of(count, self._taken))
        ends = {name: file.end for name, file in zip(own, files, strict=True)}
        ends |= {shared[linked.path]: linked.size for linked in self._linked}
        commit.switch(
            index,
            self._stem + INDEX_SUFFIX,
            check=lambda data: check_index(self._store, self.prefix, commit.directory, data, table, ends),
        )
        if callable(self._update_manifest):
            commit.follow(MANIFEST_NAME, self._update_manifest)
        elif self._update_manifest:
            commit.follow(MANIFEST_NAME, lambda present: advanced_manifest(present, self._stem, commit.directory))
        if self._overwrite:
            commit.retire(name for old in self._taken.shards.values() for name in old)
        self.result = SavedPath(
            self.prefix,
            step=step_of(self.prefix),
            durability=commit.durability,
            nbytes=len(table) + sum(ends.values()),
            linked_nbytes=sum(linked.size for linked in self._linked),
        )
        self.files = [self._store.join(commit.directory, name) for name in names]
