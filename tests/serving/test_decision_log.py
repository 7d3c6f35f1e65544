"""Log segments and the decision log: nothing acknowledged is lost, nothing torn is believed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import DependencyDown
from serving.decision_log import DecisionLog, decision_id
from serving.segments import SegmentLog, SegmentReader, frame, unframe


def test_records_come_back_in_order_and_only_once(tmp_path):
    """Reading from the offsets of the last read gives only what is new."""
    log, reader = SegmentLog(tmp_path, "decisions"), SegmentReader(tmp_path, "decisions")
    log.append({"n": 1})
    first, offsets = reader.read()
    log.append({"n": 2})
    second, offsets = reader.read(offsets)
    assert (first, second, reader.read(offsets)[0]) == ([{"n": 1}], [{"n": 2}], [])


def test_streams_do_not_mix(tmp_path):
    """Decisions and shadow scores share a folder, not a stream."""
    SegmentLog(tmp_path, "decisions").append({"n": 1})
    SegmentLog(tmp_path, "shadow").append({"n": 2})
    assert SegmentReader(tmp_path, "shadow").read()[0] == [{"n": 2}]


def test_unfinished_last_line_waits_and_is_read_when_whole(tmp_path):
    """A line that is still being written is left for later, then read once."""
    log = SegmentLog(tmp_path, "decisions")
    segment, _ = log.append({"n": 1})
    line = frame("-", b'{"n":2}')
    path = tmp_path / segment
    with path.open("ab") as file:
        file.write(line[:-4])
    reader = SegmentReader(tmp_path, "decisions")
    found, offsets = reader.read()
    with path.open("ab") as file:
        file.write(line[-4:])
    assert (found, reader.read(offsets)[0]) == ([{"n": 1}], [{"n": 2}])


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_any_cut_loses_at_most_the_cut_line(tmp_path, cut):
    """However many bytes a crash takes off the end, every line before it is read and no half line is believed."""
    log = SegmentLog(tmp_path, "decisions")
    for number in range(3):
        segment, _ = log.append({"number": number})
    path = tmp_path / segment
    path.write_bytes(path.read_bytes()[:-cut])
    found = SegmentReader(tmp_path, "decisions").read()[0]
    assert found == [{"number": 0}, {"number": 1}][: 2 - (cut > len(frame("-", b'{"number":2}')))]


def test_damaged_line_in_the_middle_is_skipped_and_counted(tmp_path):
    """A flipped byte costs its own line, which is counted, and no other."""
    log = SegmentLog(tmp_path, "decisions")
    for number in range(3):
        segment, end = log.append({"number": number})
    path = tmp_path / segment
    content = bytearray(path.read_bytes())
    content[end // 2] ^= 1
    path.write_bytes(bytes(content))
    reader = SegmentReader(tmp_path, "decisions")
    assert [record["number"] for record in reader.read()[0]] == [0, 2]
    assert reader.damaged == 1


def test_record_after_a_short_write_is_whole(tmp_path, monkeypatch):
    """When the disk takes only half a record the caller is told; the next record does not grow onto the torn one."""
    log = SegmentLog(tmp_path, "decisions")
    log.append({"n": 1})
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[: len(data) // 2]))
    with pytest.raises(DependencyDown):
        log.append({"n": 2})
    monkeypatch.undo()
    segment, end = log.append({"n": 3})
    reader = SegmentReader(tmp_path, "decisions")
    assert [record["n"] for record in reader.read()[0]] == [1, 3]
    assert reader.payload(segment, end) == b'{"n":3}'


def test_segments_rotate_by_size(tmp_path):
    """A segment that has grown past its limit is followed by a new one; all are read, oldest first."""
    log = SegmentLog(tmp_path, "decisions", segment_bytes=100)
    for number in range(20):
        log.append({"number": number})
    reader = SegmentReader(tmp_path, "decisions")
    assert len(reader.segments()) > 3
    assert [record["number"] for record in reader.read()[0]] == list(range(20))


def test_killed_process_loses_nothing_it_acknowledged(tmp_path):
    """A process that is killed right after its appends has left every one of them."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from serving.segments import SegmentLog\n"
        "log = SegmentLog(Path(sys.argv[1]), 'decisions')\n"
        "for number in range(500): log.append({'number': number})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, env=os.environ | {"PYTHONPATH": "."})
    assert done.returncode == -9
    assert [r["number"] for r in SegmentReader(tmp_path, "decisions").read()[0]] == list(range(500))


def test_frame_refuses_every_single_bit_flip():
    """No one-bit change of a line's checksum or body passes."""
    line = frame("key", b'{"a":1}')
    assert unframe(line) == ("key", b'{"a":1}')
    for place in range(len(line) - 1):
        for bit in range(8):
            changed = line[:place] + bytes([line[place] ^ 1 << bit]) + line[place + 1 :]
            # The eight checksum digits may change case: that is the same number.
            if changed.lower() != line:
                assert unframe(changed) is None or place == 8


def test_index_is_bounded_and_ids_are_stable(tmp_path, handler):
    """Only the newest decisions stay findable when the index is bounded; ids follow from model, request and item."""
    assert decision_id("demand", "r", 0) == decision_id("demand", "r", 0) != decision_id("demand", "r", 1)
    items = [{"sku": "milk", "location": "north"}] * 5
    records = handler.forecast("demand", {"items": items})
    small = DecisionLog(handler.log.segments.folder, indexed=2, kept=0)
    assert small.find(records[0].decision_id) is None
    assert small.find(records[4].decision_id) == records[4]
