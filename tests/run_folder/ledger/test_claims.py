from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from hpcjobs.errors import MergeError
from hpcjobs.run_folder.files import name_once
from hpcjobs.run_folder.ledger import claims as claims_module
from hpcjobs.run_folder.ledger.claims import Claims, Counted, EmptyClaimError, Former
from tests.runs import finish, lease_of, start_process, wait_for

FORMER = (Former("a-1.jsonl", 0, (4, 2)), Former("a-2.jsonl", 1, (7,)))


def test_a_lease_comes_back_and_has_one_creator(tmp_path: Path) -> None:
    claims, lease = Claims(tmp_path), lease_of(3, 1, generation=2, former=FORMER)
    assert claims.lease(lease)
    assert not claims.lease(lease_of(3, 2, generation=2))
    assert claims.read_lease(3, 2) == lease
    assert lease.counted == {2, 4, 7}


def test_a_lease_that_was_given_back_says_why_and_names_suspects(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    given = lease_of(3, generation=1, journal="", former=FORMER, released="hung: in sample 5", suspects=(5, 9, 5))
    assert claims.lease(given)
    assert claims.read_lease(3, 1) == given
    assert claims.lease(lease_of(4))
    assert (claims.read_lease(4, 0).released, claims.read_lease(4, 0).suspects) == ("", ())


def test_a_lease_written_before_there_were_suspects_is_read(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claims.lease(lease_of(3))
    values = json.loads((tmp_path / "3.0").read_bytes())
    del values["suspects"], values["released"]
    (tmp_path / "3.0").write_text(json.dumps(values))
    assert claims.read_lease(3, 0) == lease_of(3)


def test_the_first_done_stands(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert claims.done(lease_of(3, 1, former=FORMER))
    assert not claims.done(lease_of(3, 2, generation=1))
    assert claims.read_verdict(3, "done") == Counted(3, "a-1.jsonl", 0, FORMER)


def test_a_done_chunk_is_one_file_with_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, later = Claims(tmp_path), Claims(tmp_path), lease_of(3, 2, generation=1, former=FORMER)
    assert first.lease(lease_of(3, 1))
    assert second.lease(later)
    assert second.done(later)
    assert not first.done(lease_of(3, 1))
    assert (tmp_path / "3.done").samefile(tmp_path / "3.1")
    assert first.read_verdict(3, "done") == Counted(3, "a-2.jsonl", 1, FORMER)
    assert name_once(tmp_path / "3.1", tmp_path / "3.done", ""), "only the reply to the link was lost"

    claims = first
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    assert claims.lease(lease_of(4))
    monkeypatch.setattr(os, "link", refuse)
    assert claims.done(lease_of(4))
    assert not claims.done(lease_of(4, 7))
    assert not (tmp_path / "4.done").samefile(tmp_path / "4.0")
    assert claims.lease(lease_of(5))
    assert claims.done(lease_of(5, 9)), "of a lease that is not the file's"
    assert claims.read_verdict(5, "done").journal == "a-9.jsonl"
    assert claims.read_verdict(4, "done") == Counted(4, "a-0.jsonl", 0, ())


def test_a_closing_counts_its_former_samples_alone(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert claims.close(lease_of(3, 1, generation=1, former=FORMER))
    assert not claims.close(lease_of(3, 1, generation=2))
    assert claims.read_verdict(3, "closed") == Counted(3, None, 1, FORMER)


def test_a_look_into_the_folder_sees_the_highest_generations(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    for chunk, generation in [(0, 0), (12, 0), (12, 1), (12, 10), (12, 9), (7, 0)]:
        claims.lease(lease_of(chunk, generation=generation))
    claims.done(lease_of(0))
    claims.close(lease_of(7))
    for stranger in ("chunks.parquet", ".0.1.77.abc.tmp", "notes", "5.tmp"):
        (tmp_path / stranger).touch()
    listing = claims.list()
    assert listing.leased == {0: 0, 12: 10, 7: 0}
    assert (listing.done, listing.closed, listing.settled) == ({0}, {7}, {0, 7})


def test_one_chunk_is_asked_for_without_the_folder(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert claims.kinds(1) == (-1, False)
    for generation in range(3):
        claims.lease(lease_of(1, generation=generation))
    assert claims.kinds(1) == (2, False)
    claims.close(lease_of(1))
    claims.done(lease_of(2))
    assert claims.kinds(1) == (2, True)
    assert claims.kinds(2) == (-1, True)


def test_a_claim_seen_before_it_is_whole_is_waited_for(tmp_path: Path) -> None:
    """Where hard links are missing the name is there before the content."""
    claims, lease = Claims(tmp_path), lease_of(0, former=FORMER)
    claims.lease(lease)
    content = (tmp_path / "0.0").read_bytes()
    (tmp_path / "0.0").write_bytes(content[:20])
    found = []
    reader = threading.Thread(target=lambda: found.append(claims.read_lease(0, 0)))
    reader.start()
    reader.join(0.2)
    assert reader.is_alive(), "half a lease was taken for a whole one"
    (tmp_path / "0.0").write_bytes(content)
    reader.join(30)
    assert found == [lease]


@pytest.mark.parametrize("content", [b'{"chunk":', None])
def test_a_claim_that_never_gets_whole_is_named(
    tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "_VISIBLE_SECONDS", 0.2)
    if content is not None:
        (tmp_path / "0.0").write_bytes(content)
    with pytest.raises(MergeError, match=f"{tmp_path}/0.0: broken claim file"):
        Claims(tmp_path).read_lease(0, 0)


def test_an_empty_claim_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its creator died between creating and writing it, which is possible without hard links."""
    monkeypatch.setattr(claims_module, "_VISIBLE_SECONDS", 0.1)
    (tmp_path / "3.2").touch()
    (tmp_path / "3.done").touch()
    claims = Claims(tmp_path)
    lease = claims.read_lease(3, 2)
    assert (lease.chunk, lease.generation, lease.journal, lease.former) == (3, 2, "", ())
    assert (lease.attempt, lease.host, lease.identity.machine) == ("nobody", "nowhere", "")
    with pytest.raises(EmptyClaimError, match=f"{tmp_path}/3.done is empty"):
        claims.read_verdict(3, "done")


def test_whether_a_chunk_was_ever_leased(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert not claims.is_leased(1)
    claims.lease(lease_of(1))
    assert claims.is_leased(1)


def take_all(folder: str, rank: int, chunks: int) -> None:
    wait_for(Path(folder, "go").exists, "the start")
    claims, own = Claims(Path(folder, "round")), []
    for chunk in range(chunks):
        if claims.lease(lease_of(chunk, rank)):
            own.append(chunk)
            claims.done(lease_of(chunk, rank))
    Path(folder, f"own-{rank}").write_text(json.dumps(own))


def test_racing_ranks_share_the_chunks_exactly(ram: Path) -> None:
    (ram / "round").mkdir()
    processes = [start_process(take_all, str(ram), rank, 80) for rank in range(4)]
    (ram / "go").touch()
    assert [finish(process) for process in processes] == [0] * 4
    own = [json.loads((ram / f"own-{rank}").read_text()) for rank in range(4)]
    assert sorted(chunk for chunks in own for chunk in chunks) == list(range(80))
    claims = Claims(ram / "round")
    for rank, chunks in enumerate(own):
        assert all(claims.read_lease(chunk, 0).rank == rank for chunk in chunks)
        assert all(claims.read_verdict(chunk, "done").journal == f"a-{rank}.jsonl" for chunk in chunks)
