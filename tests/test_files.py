"""Files appear whole or not at all, together or not at all; leftovers go; errors have a remedy."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deeplung_nb.files import (
    JOURNAL,
    LOCK,
    PART,
    atomic_path,
    atomic_paths,
    check_name,
    check_writable,
    explain,
    recover,
    remove_leftovers,
    safe_name,
    sha256_of,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_files_appear_together_or_not_at_all(tmp_path):
    def fill_the_disk():
        with atomic_paths(tmp_path / "mask.nii.gz", tmp_path / "table.csv") as parts:
            parts[0].write_text("mask")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill_the_disk()
    assert names(tmp_path) == []
    with atomic_paths(tmp_path / "mask.nii.gz", tmp_path / "table.csv") as parts:
        for part in parts:
            part.write_text(part.name)
    assert names(tmp_path) == ["mask.nii.gz", "table.csv"]


def test_a_second_file_that_cannot_be_placed_takes_the_first_back(tmp_path):
    (tmp_path / "table.csv").mkdir()

    def place_both():
        with atomic_paths(tmp_path / "mask.nii.gz", tmp_path / "table.csv"):
            pass

    with pytest.raises(IsADirectoryError):
        place_both()
    assert names(tmp_path) == ["table.csv"]


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old")

    def stop_in_the_middle():
        with atomic_path(target) as part:
            part.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop_in_the_middle()
    assert target.read_text() == "old"


def test_what_a_killed_process_leaves_is_removed_and_a_living_ones_stays(tmp_path):
    code = ("import sys, time; from deeplung_nb.files import atomic_path\n"
            "with atomic_path(sys.argv[1]) as part:\n"
            "    part.write_text('half'); print('written', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "mask.nii.gz")],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    assert remove_leftovers(tmp_path) == 0
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [name.startswith(PART) for name in names(tmp_path)] == [True]
    with atomic_path(tmp_path / "mine.csv"):
        assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == ["mine.csv"]


def test_leftovers_of_another_machine_go_after_a_day(tmp_path):
    for age in (0, 2 * 24 * 3600):
        part = tmp_path / f"{PART}elsewhere-{age + 1}-abc.csv"
        part.write_text("half")
        os.utime(part, (time.time() - age,) * 2)
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == [f"{PART}elsewhere-1-abc.csv"]


def test_what_cannot_be_written_is_known_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "deep")
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError) as caught:
        check_writable(tmp_path / "file" / "sub")
    assert "A file stands where a folder is needed" in explain(caught.value)
    with pytest.raises(OSError, match="MB free") as caught:
        check_writable(tmp_path, needed_bytes=1 << 60)
    assert "The disk is full" in explain(caught.value)
    assert str(tmp_path) in explain(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EEXIST, errno.EIO])
def test_errors_of_the_system_name_path_and_remedy(number):
    text = explain(OSError(number, os.strerror(number), "some/place"))
    assert text.startswith("some/place: ")
    assert ". " in text
    assert "Errno" not in text
    assert explain(FileNotFoundError("ours: says all")) == "ours: says all"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "-option", "a b", "é", "x" * 101,
                                  "a\0b", "a\nb", "a\n", "C:\\x"])
def test_names_that_leave_their_folder_are_refused_or_made_safe(name):
    with pytest.raises(ValueError, match="expected at most 100 letters"):
        check_name(name)
    assert check_name(safe_name(name)) == safe_name(name)


def test_a_name_that_is_safe_stays():
    assert safe_name("X001") == check_name("X001") == "X001"


def test_a_folders_hash_is_that_of_its_sha256sum_lines(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.dcm").write_bytes(b"two")
    (tmp_path / "1.dcm").write_bytes(b"one")
    lines = (f"{hashlib.sha256(b'one').hexdigest()}  1.dcm\n"
             f"{hashlib.sha256(b'two').hexdigest()}  b/2.dcm\n")
    assert sha256_of(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()


def test_files_have_the_rights_that_the_umask_leaves(tmp_path):
    for umask, rights in ((0o077, 0o600), (0o022, 0o644), (0o007, 0o660)):
        before = os.umask(umask)
        try:
            with atomic_path(tmp_path / f"{umask}.csv") as part:
                part.write_text("rows")
        finally:
            os.umask(before)
        assert (tmp_path / f"{umask}.csv").stat().st_mode & 0o777 == rights


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from dying import die_at
from deeplung_nb import files

die_at(int(sys.argv[1]))
folder = Path(sys.argv[2])
with files.atomic_paths(*(folder / name for name in ("mask", "table", "card"))) as parts:
    for part in parts:
        part.write_text("new")
"""


def kill_at(n, folder):
    return subprocess.run([sys.executable, "-c", KILLED, str(n), str(folder),
                           str(Path(__file__).parent)]).returncode


@pytest.mark.parametrize("there", [False, True], ids=["new", "overwritten"])
def test_a_kill_at_any_rename_leaves_one_making_and_the_next_call_makes_it_whole(tmp_path, there):
    """Also before that call no two makings lie side by side, nor the card without the others."""
    whole = {"mask", "table", "card"}
    for n in range(1, 40):
        folder = tmp_path / str(n)
        folder.mkdir()
        if there:
            for name in whole:
                (folder / name).write_text("old")
        code = kill_at(n, folder)
        found = {name: (folder / name).read_text() for name in whole if (folder / name).exists()}
        assert len(set(found.values())) <= 1, f"two makings after kill {n}: {found}"
        assert "card" not in found or len(found) == 3
        remove_leftovers(folder)
        found = {path.name: path.read_text() for path in folder.iterdir() if path.name != LOCK}
        assert set(found.values()) <= {"old", "new"}
        assert set(found) in (whole, set() if not there else whole)
        assert len(set(found.values())) <= 1
        if code == 0:
            break
    assert code == 0
    assert n > 6, "the kills did not reach the renames"
    assert set(found.values()) == {"new"}


def test_two_processes_place_one_after_the_other(tmp_path):
    code = ("import sys; from deeplung_nb.files import atomic_paths\n"
            "for k in range(60):\n"
            "    with atomic_paths(*(sys.argv[1] + n for n in ('/a', '/b', '/c'))) as parts:\n"
            "        for part in parts: part.write_text(sys.argv[2] + str(k))")
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), who]) for who in "xy"]
    assert [process.wait() for process in both] == [0, 0]
    assert names(tmp_path) == ["a", "b", "c"]
    assert len({(tmp_path / name).read_text() for name in "abc"}) == 1


def test_what_came_meanwhile_is_not_replaced_unless_asked(tmp_path):
    def late():
        with atomic_paths(tmp_path / "a", tmp_path / "b", replace=False) as parts:
            for part in parts:
                part.write_text("mine")
            (tmp_path / "b").write_text("another's")

    with pytest.raises(FileExistsError, match="another process"):
        late()
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b").read_text() == "another's"


@pytest.mark.parametrize("content", ["no json", "[[1]]", '[["../x", "y"]]', '[["x", "y"]]',
                                     f'[["{PART}x", "../../escaped"]]'])
def test_a_list_of_files_that_is_not_ours_is_named_and_left(tmp_path, content):
    (tmp_path / JOURNAL).write_text(content)
    with pytest.raises(OSError, match=JOURNAL):
        recover(tmp_path)
    assert names(tmp_path) == [JOURNAL]


def test_a_dead_process_holds_no_lock(tmp_path):
    code = ("import fcntl, os, sys, time; s = open(sys.argv[1], 'wb'); fcntl.flock(s, 2)\n"
            "print('held', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / LOCK)],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    with atomic_paths(tmp_path / "a", tmp_path / "b"):
        pass
    assert names(tmp_path) == ["a", "b"]
