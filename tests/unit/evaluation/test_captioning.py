"""Captions of folders and lists: which pictures, resumed, merged, and those that cannot be used."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from racro_pl.commands import caption
from racro_pl.evaluation.captioning import CaptionFile, Picture, PictureCaptions, Sidecars, pictures_of
from racro_pl.types import RacroError
from tests.helpers.service import SizeWriter


class NamingWriter(SizeWriter):
    """Captions are file names."""

    def write(self, work):
        from racro_pl.evaluation.writers import Written

        self.batches.append(len(work))
        for question, task in work:
            yield Written(question, task, f"{question.images[0].path.name}: {question.text}", False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(5):
        path = tmp_path / "pictures" / ("deep" if index > 2 else ".") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "pictures" / "3 broken.PNG").write_bytes(b"no picture")
    (tmp_path / "pictures" / "notes.txt").write_text("not a picture")
    return tmp_path / "pictures"


def run(pictures, output, writer=None) -> Counter:
    job = PictureCaptions(pictures, output, lambda text: None)
    left = job.left()
    assert len(list(job.write(pictures, writer or NamingWriter()))) == left
    job.end()
    return job.problems


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_becomes_a_data_set_that_datasets_would_read(folder, tmp_path) -> None:
    pictures = pictures_of(folder, "What is it?")
    assert [picture.name for picture in pictures] == [
        "0.png",
        "1.png",
        "2.png",
        "3 broken.PNG",
        "deep/3.png",
        "deep/4.png",
    ]
    output = CaptionFile(tmp_path / "out" / "captions.jsonl", 0)
    assert run(pictures, output) == {"unusable image": 1}
    output.merge(pictures)
    assert [row["image"] for row in rows(output.path)] == ["0.png", "1.png", "2.png", "deep/3.png", "deep/4.png"]
    assert rows(output.path)[0] == {
        "image": "0.png", "question": "What is it?", "caption": "0.png: What is it?", "truncated": False
    }  # fmt: skip


def test_what_is_there_is_not_written_again_whatever_a_kill_left(folder, tmp_path) -> None:
    pictures = pictures_of(folder, "What is it?")
    path = tmp_path / "captions.jsonl"
    run(pictures[:2], CaptionFile(path, 0))
    run(pictures[2:3], CaptionFile(path, 1))
    with path.open("a") as file:
        file.write('{"image": "deep/3.p')
    writer = NamingWriter()
    output = CaptionFile(path, 0)
    run(pictures, output, writer)
    assert sum(writer.batches) == 2
    output.merge(pictures)
    assert [row["image"] for row in rows(path)] == ["0.png", "1.png", "2.png", "deep/3.png", "deep/4.png"]
    assert list(tmp_path.glob("captions-rank*")) == []


@pytest.mark.slow
def test_three_broken_images_among_ten_thousand_are_named(tmp_path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (2, 2)).save(folder / "00000.png")
    for index in range(1, 10_000):
        (folder / f"{index:05}.png").hardlink_to(folder / "00000.png")
    broken = ["00007.png", "05000.png", "09999.png"]
    for name in broken:
        (folder / name).unlink()
        (folder / name).write_bytes(b"no picture")
    told: list[str] = []
    output = CaptionFile(tmp_path / "captions.jsonl", 0)
    pictures = pictures_of(folder, "What is it?")
    job = PictureCaptions(pictures, output, told.append)
    for start in range(0, len(pictures), 256):
        list(job.write(pictures[start : start + 256], NamingWriter()))
    job.end()
    output.merge(pictures)
    assert [line.split(":")[0] for line in told] == broken
    assert job.problems == {"unusable image": 3}
    assert len(rows(output.path)) == 9_997
    assert job.left() == 3


def test_sidecars_stand_beside_their_pictures(folder) -> None:
    pictures = pictures_of(folder, "What is it?")
    run(pictures, Sidecars(pictures))
    assert (folder / "deep" / "4.txt").read_text() == "4.png: What is it?\n"
    writer = NamingWriter()
    run(pictures, Sidecars(pictures), writer)
    assert sum(writer.batches) == 0


def test_rows_of_a_list_may_have_their_own_question(folder) -> None:
    file = folder / "list.jsonl"
    file.write_text('{"image": "0.png"}\n{"image": "0.png", "question": "How many?"}\n{"image": "0.png"}\n')
    assert pictures_of(file, "What is it?") == [
        Picture("0.png", folder / "0.png", "What is it?"),
        Picture("0.png", folder / "0.png", "How many?"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"picture": "0.png"}\n', "list.jsonl:1: expected .* it has 'picture'"),
        ("", "holds no rows"),
        ("[]\n", "list.jsonl:1"),
    ],
)
def test_a_list_without_images_is_refused(folder, content, message) -> None:
    (folder / "list.jsonl").write_text(content)
    with pytest.raises(RacroError, match=message):
        pictures_of(folder / "list.jsonl", "What is it?")


def test_an_empty_folder_and_a_missing_one_are_refused(tmp_path) -> None:
    with pytest.raises(RacroError, match="holds no images"):
        pictures_of(tmp_path, "What is it?")
    with pytest.raises(RacroError, match="expected a folder"):
        pictures_of(tmp_path / "nowhere", "What is it?")


@pytest.fixture
def command(folder, tmp_path, monkeypatch, capsys):
    """Runs the command on the readable pictures, with a captioner that names files; returns what it said."""
    writer = NamingWriter()
    monkeypatch.setattr("racro_pl.evaluation.captioner_module.open_writer", lambda settings, device: writer)
    (folder / "3 broken.PNG").unlink()

    def call(*flags: str, status: int = 0) -> str:
        line = [str(folder), "--captioner", "embedded:figure-captioner", "--accelerator", "cpu", "--devices", "1"]
        assert caption.main([*line, "--output", str(tmp_path / "c.jsonl"), *flags]) == status
        return capsys.readouterr().err

    call.writer = writer
    return call


def test_the_command_captions_resumes_and_tells_what_is_missing(command, folder) -> None:
    (folder / "3 broken.PNG").write_bytes(b"no picture")
    told = command(status=1)
    assert "3 broken.PNG: unusable image" in told
    assert "5 of 6 captions are in" in told
    assert "already" not in told
    (folder / "3 broken.PNG").unlink()
    assert "5 captions are there already" in command()
    assert sum(command.writer.batches) == 5


def test_captions_of_another_question_or_picture_stay(command, folder, tmp_path) -> None:
    command("--question", "one ?")
    (folder / "0.png").unlink()
    command("--question", "two ?")
    found = [(row["image"], row["question"]) for row in rows(tmp_path / "c.jsonl")]
    names = ["0.png", "1.png", "2.png", "deep/3.png", "deep/4.png"]
    assert found == [(name, "two ?") for name in names[1:]] + [(name, "one ?") for name in names]


@pytest.mark.parametrize("output", [(), ("--output", "sidecars")])
def test_captions_of_another_captioner_are_not_passed_off_as_its_own(command, tmp_path, output) -> None:
    command(*output)
    with pytest.raises(RacroError, match=r"holds captions made with another max_new_tokens: move it away, or name"):
        command(*output, "--max_tokens", "2")
    command(*output)
    for note in tmp_path.rglob("*.racro.json"):
        note.unlink()
    with pytest.raises(RacroError, match=r"holds captions whose captioner is unknown"):
        command(*output)


def test_captions_that_a_further_rank_left_count_too(command, tmp_path) -> None:
    """Killed before the first rank had written anything."""
    command()
    (tmp_path / "c.jsonl").rename(tmp_path / "c-rank1.jsonl")
    with pytest.raises(RacroError, match=r"c-rank1.jsonl holds captions made with another max_new_tokens"):
        command("--max_tokens", "2")
    assert "5 captions are there already" in command()
    assert len(rows(tmp_path / "c.jsonl")) == 5


def test_sidecars_of_another_question_are_not_the_new_ones(command) -> None:
    command("--output", "sidecars", "--question", "one ?")
    with pytest.raises(RacroError, match="0.txt holds captions made with another question"):
        command("--output", "sidecars", "--question", "two ?")


def test_a_file_that_holds_something_else_is_left_alone(command, folder, tmp_path) -> None:
    (tmp_path / "c.jsonl").write_text('{"image": "0.png", "question": "?", "answer": "B"}\n')
    with pytest.raises(RacroError, match="captioner is unknown"):
        command()
    assert rows(tmp_path / "c.jsonl") == [{"image": "0.png", "question": "?", "answer": "B"}]
    with pytest.raises(RacroError, match="the list of pictures itself"):
        caption.main([str(tmp_path / "c.jsonl"), "--output", str(tmp_path / "c.jsonl")])


def test_pictures_of_one_name_cannot_share_a_sidecar(folder) -> None:
    Image.new("RGB", (8, 8)).save(folder / "0.jpg")
    with pytest.raises(RacroError, match=r"0.jpg and 0.png would both have their caption in .*0.txt"):
        Sidecars(pictures_of(folder, "What is it?"))


@pytest.mark.parametrize("flags", [["--output", "captions.csv"], ["--batch_size", "0"], ["--max_tokens", "-1"]])
def test_bad_flags_are_refused(flags) -> None:
    with pytest.raises(RacroError, match=flags[0]):
        caption.main(["somewhere", *flags])
