"""The videos of a run: arguments first, then a list."""

import io
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rayclip.errors import UsageError
from rayclip.inputs import json_lines, lists
from rayclip.inputs.selection import Inputs, select_all
from rayclip.inputs.videos import absolute, extra_columns, iter_rows, iter_videos
from rayclip.output.safe_names import stem
from rayclip.settings import Settings


def videos(*video_paths: str, list_file: str | Path | None = None) -> list[str]:
    listed = None if list_file is None else str(list_file)
    return list(iter_videos(Settings(video_paths=video_paths, file_with_video_paths=listed)))


def text_list(folder: Path, content: str | bytes) -> Path:
    path = folder / "videos.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet_list(folder: Path, **columns: list[object]) -> Path:
    path = folder / "videos.parquet"
    pq.write_table(pa.table(columns), path)
    return path


# ---- lists ----


def test_arguments_keep_their_order_in_a_run() -> None:
    assert videos("b.mp4", "a.mp4", "b.mp4") == ["b.mp4", "a.mp4", "b.mp4"]


def test_a_text_list_has_one_video_per_line(tmp_path: Path) -> None:
    assert videos(list_file=text_list(tmp_path, "a.mp4\nb c.mp4\n")) == ["a.mp4", "b c.mp4"]


@pytest.mark.parametrize(
    "content",
    [
        "a.mp4\nb.mp4",
        "\n\na.mp4\n\n  \nb.mp4\n\n",
        "  a.mp4\t\n b.mp4 \n",
        "a.mp4\r\nb.mp4\r\n",
        "\ufeffa.mp4\nb.mp4\n",
    ],
    ids=["no-last-line-end", "blank-lines", "spaces", "windows", "byte-order-mark"],
)
def test_a_text_list_is_read_as_editors_write_it(tmp_path: Path, content: str) -> None:
    assert videos(list_file=text_list(tmp_path, content)) == ["a.mp4", "b.mp4"]


def test_a_parquet_list_has_its_videos_in_the_column_path(tmp_path: Path) -> None:
    listed = parquet_list(tmp_path, label=[1, 2], path=["a.mp4", "b.mp4"])
    assert videos(list_file=listed) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("videos.csv", b"label,path\n1,a.mp4\n2,b.mp4\n"),
        ("videos.CSV", b"path\na.mp4\nb.mp4"),
        ("videos.csv", b"\xef\xbb\xbfpath\r\na.mp4\r\nb.mp4\r\n"),
        ("videos.csv", b'"path","caption"\n"a.mp4","two\nlines, and ""quotes"""\nb.mp4,\n'),
        ("videos.tsv", b"path\tcaption\na.mp4\tone, two\nb.mp4\t\n"),
    ],
    ids=["columns", "one-column", "windows-byte-order-mark", "quotes", "tabs"],
)
def test_a_csv_list_has_its_videos_in_the_column_path(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert videos(list_file=tmp_path / name) == ["a.mp4", "b.mp4"]


def test_a_csv_list_can_hold_any_name(tmp_path: Path) -> None:
    listed = tmp_path / "videos.csv"
    listed.write_bytes(b'path\n"a, ""b""\n.mp4"\nNULL\n007\ncaf\xe9.mp4\n')
    found = videos(list_file=listed)
    assert found == ['a, "b"\n.mp4', "NULL", "007", os.fsdecode(b"caf\xe9.mp4")]


def test_a_csv_list_is_read_block_by_block(tmp_path: Path) -> None:
    listed = tmp_path / "videos.csv"
    listed.write_text("number,path\n" + "".join(f"{n},{n}.mp4\n" for n in range(200_000)))
    given = iter_videos(Settings(file_with_video_paths=str(listed)))
    assert next(given) == "0.mp4"
    assert sum(1 for _ in given) == 199_999


def test_arguments_come_before_the_list(tmp_path: Path) -> None:
    listed = text_list(tmp_path, "b.mp4\n")
    assert videos("c.mp4", "a.mp4", list_file=listed) == ["c.mp4", "a.mp4", "b.mp4"]


@pytest.mark.parametrize("name", ["videos.txt", "videos.parquet"])
def test_a_list_can_be_a_url(tmp_path: Path, memory_url: str, name: str) -> None:
    text_list(tmp_path, "a.mp4\n")
    parquet_list(tmp_path, path=["a.mp4"])
    with fsspec.open(f"{memory_url}/{name}", "wb") as file:
        file.write((tmp_path / name).read_bytes())
    assert videos(list_file=f"{memory_url}/{name}") == ["a.mp4"]


@pytest.mark.parametrize("query", ["", "?download=true", "?X-Signature=a/b.txt#c.txt"])
def test_the_format_of_a_list_on_a_server_depends_on_its_path(
    query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = b"label,path\n1,a.mp4\n"
    monkeypatch.setattr(lists, "open_remote", lambda *_: nullcontext(io.BytesIO(table)))
    assert videos(list_file=f"https://host/train.csv{query}") == ["a.mp4"]


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is empty"):
        videos(list_file=text_list(tmp_path, "\n\n"))


def test_a_list_can_be_read_again(tmp_path: Path) -> None:
    settings = Settings(file_with_video_paths=str(text_list(tmp_path, "a.mp4\nb.mp4\n")))
    assert list(iter_videos(settings)) == list(iter_videos(settings))


def test_arguments_are_given_before_the_list_is_opened(tmp_path: Path) -> None:
    settings = Settings(video_paths=("a.mp4",), file_with_video_paths=str(tmp_path / "nowhere"))
    assert next(iter_videos(settings)) == "a.mp4"


@pytest.mark.parametrize("way", ["file", "standard-input"])
def test_names_in_a_list_may_be_any_bytes(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = text_list(tmp_path, b"\xef\xbb\xbfcaf\xe9.mp4\n\xc3\xbc.mp4\n")
    if way == "standard-input":
        monkeypatch.setattr("sys.stdin", listed.open())
        lists._standard_input.cache_clear()
    found = videos(list_file=listed if way == "file" else "-")
    lists._standard_input.cache_clear()
    assert list(map(os.fsencode, found)) == [b"caf\xe9.mp4", "ü.mp4".encode()]


@example("~")
@example("file:///a%20b.mp4")
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_name_fits_a_line_if_it_is_read_back_as_it_was(video: str) -> None:
    lines = lists.video_lines(lists.decode_text(io.BytesIO(os.fsencode(f"x\n{video}\n"))))
    assert (list(lines) == ["x", video]) == lists.fits_a_line(video)


# ---- what is refused ----


def test_no_videos_and_no_list_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="No videos were given"):
        videos()


def test_a_missing_list_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.txt cannot be read"):
        videos(list_file=tmp_path / "nowhere.txt")


def test_a_list_that_is_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        videos(list_file=tmp_path)


def test_a_list_that_is_not_text_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        videos(list_file=text_list(tmp_path, b"\xff\xfe\x00"))


def test_a_list_with_an_unknown_protocol_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nosuch://bucket"):
        videos(list_file="nosuch://bucket/videos.txt")


def test_a_file_that_is_not_a_table_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "videos.parquet"
    path.write_text("a.mp4\n")
    with pytest.raises(UsageError, match="is not a parquet table"):
        videos(list_file=path)


def test_a_table_without_the_column_path_is_refused_naming_its_columns(tmp_path: Path) -> None:
    listed = parquet_list(tmp_path, video=["a.mp4"], label=[1])
    with pytest.raises(UsageError, match=r"no column 'path': .* one of video, label"):
        videos(list_file=listed)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"video,label\na.mp4,1\n", "no column 'path': .* one of video, label"),
        (b"a.mp4\nb.mp4\n", r"no column 'path': .* one of a\.mp4"),
        (b"path,label\na.mp4,1\n,2\n", "has '' in column 'path', which is not a path"),
        (b"path,label\na.mp4,1\nb.mp4\n", r"cannot be read: .*Row #3: Expected 2 columns, got 1"),
        (b"", "cannot be read: Empty CSV file"),
        (b"path\n", "is empty"),
    ],
    ids=["other-columns", "no-header", "no-path", "short-row", "empty", "header-only"],
)
def test_a_csv_list_that_cannot_be_used_is_refused_in_one_sentence(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "videos.csv").write_bytes(content)
    with pytest.raises(UsageError, match=sentence) as caught:
        videos(list_file=tmp_path / "videos.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("paths", [["a.mp4", None], [1, 2]], ids=["null", "numbers"])
def test_a_table_whose_paths_are_not_all_text_is_a_usage_error(
    tmp_path: Path, paths: list[object]
) -> None:
    with pytest.raises(UsageError):
        videos(list_file=parquet_list(tmp_path, path=paths))


# ---- names ----


@pytest.mark.parametrize(
    ("video", "name"),
    [
        ("cat.mp4", "cat"),
        ("a/b.c.mp4", "b.c"),
        ("/videos/cat", "cat"),
        ("/videos/.cat.mp4", ".cat"),
        ("a b.mp4", "a b"),
        ("100%25.mp4", "100%25"),  # a local name is taken as it is
        ("s3://bucket/folder/cat.mp4", "cat"),
        ("https://host/cat.mp4?token=secret/x.y", "cat"),
        ("https://host/a%20b.mp4", "a b"),
        ("file:///videos/cat.mp4", "cat"),
        ("memory://cat.mp4", "cat"),
        ("zip://cat.mp4::/videos/animals.zip", "cat"),
        ("zip://folder/cat.mp4::s3://bucket/animals.zip", "cat"),
    ],
)
def test_the_stem_of_a_video_is_its_name_without_folder_and_suffix(video: str, name: str) -> None:
    assert stem(video) == name


def test_a_hash_sign_in_an_object_key_is_part_of_the_name() -> None:
    assert stem("s3://bucket/take#1.mp4") != stem("s3://bucket/take#2.mp4")


@pytest.mark.parametrize(
    ("video", "path"),
    [
        ("cat.mp4", "/here/cat.mp4"),
        ("../cat.mp4", "/here/../cat.mp4"),
        ("/videos/cat.mp4", "/videos/cat.mp4"),
        ("s3://bucket/cat.mp4", "s3://bucket/cat.mp4"),
    ],
)
def test_relative_paths_are_resolved_in_the_folder_of_the_command(video: str, path: str) -> None:
    assert absolute(video, "/here") == path


# ---- what is beside the names ----


def rows(listed: Path, *video_paths: str) -> list[pa.Table]:
    settings = Settings(video_paths=video_paths, file_with_video_paths=str(listed))
    return list(iter_rows(settings, extra_columns=True))


def table_list(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_the_columns_of_parquet_keep_their_types_and_are_null_for_arguments(tmp_path: Path) -> None:
    labels = pa.array([1, None], pa.int8())
    listed = parquet_list(tmp_path, label=labels, path=["a.mp4", "b.mp4"], tags=[["x"], []])
    table = pa.concat_tables(rows(listed, "first.mp4"))
    assert table.schema.types == [pa.binary(), pa.int8(), pa.list_(pa.string())]
    assert table.to_pydict() == {
        "video": [b"first.mp4", b"a.mp4", b"b.mp4"],
        "label": [None, 1, None],
        "tags": [None, ["x"], []],
    }


def test_views_and_non_nullable_columns_are_copied_as_types_that_can_be_saved(
    tmp_path: Path,
) -> None:
    listed = tmp_path / "videos.parquet"
    schema = pa.schema(
        [
            pa.field("path", pa.string_view(), nullable=False),
            pa.field("caption", pa.string_view()),
            pa.field("raw", pa.binary_view()),
            pa.field("label", pa.int8(), nullable=False),
        ]
    )
    columns = {"path": ["a.mp4"], "caption": ["a cat"], "raw": [b"c"], "label": [1]}
    pq.write_table(pa.table(columns, schema), listed)
    table = pa.concat_tables(rows(listed, "first.mp4"))
    assert table.schema.types == [pa.binary(), pa.large_string(), pa.large_binary(), pa.int8()]
    assert all(field.nullable for field in table.schema)
    assert table.filter(pa.array([False, True])).to_pylist() == [
        {"video": b"a.mp4", "caption": "a cat", "raw": b"c", "label": 1}
    ]


def test_the_columns_of_csv_are_unchanged_strings(tmp_path: Path) -> None:
    late = "".join(f"{n}.mp4,{n},\n" for n in range(100_000))  # several blocks of Arrow's
    content = f"path,label,note\n{late}z.mp4,007,".encode() + b"caf\xe9\n"
    table = pa.concat_tables(rows(table_list(tmp_path, "videos.csv", content)))
    assert table.schema.types == [pa.binary(), pa.string(), pa.string()]
    assert table.slice(99_999).to_pydict() == {
        "video": [b"99999.mp4", b"z.mp4"],
        "label": ["99999", "007"],
        "note": ["", "caf\N{REPLACEMENT CHARACTER}"],
    }


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        (["true", "null"], pa.bool_(), [True, None]),
        (["1", "-2"], pa.int64(), [1, -2]),
        (["1", "2.5"], pa.float64(), [1.0, 2.5]),
        (['"a"', "null"], pa.string(), ["a", None]),
        (["null", "null"], pa.string(), [None, None]),
        (['"2024-05-01"', '"in May"'], pa.string(), ["2024-05-01", "in May"]),
        (['"2024-05-01"', "null"], pa.string(), ["2024-05-01", None]),
        (["[]", "[1, 2]"], pa.list_(pa.int64()), [[], [1, 2]]),
        (['{"a": 1}', "null"], pa.struct([("a", pa.int64())]), [{"a": 1}, None]),
    ],
)
@pytest.mark.parametrize("block_bytes", [5, 4 * 2**20])
def test_the_columns_of_json_lines_have_types_that_fit_the_whole_file(
    values: list[str],
    kind: pa.DataType,
    read: list[object],
    block_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", block_bytes)
    lines = [f'{{"label": {value}, "path": "{n}.mp4"}}\n' for n, value in enumerate(values)]
    listed = table_list(tmp_path, "videos.jsonl", "".join([*lines, "\n"]).encode())
    table = pa.concat_tables(rows(listed))
    assert table.schema.field("label").type == kind
    assert table.to_pydict() == {"video": [b"0.mp4", b"1.mp4"], "label": read}
    assert videos(list_file=listed) == ["0.mp4", "1.mp4"]


def test_the_bytes_of_json_lines_need_not_be_utf8(tmp_path: Path) -> None:
    listed = table_list(tmp_path, "videos.jsonl", b'{"path": "caf\xe9.mp4", "a": "\xe9"}\n')
    assert videos(list_file=listed) == [os.fsdecode(b"caf\xe9.mp4")]
    assert pa.concat_tables(rows(listed)).to_pylist() == [
        {"video": b"caf\xe9.mp4", "a": "\N{REPLACEMENT CHARACTER}"}
    ]


@pytest.mark.parametrize(
    "values",
    [['"a"', "1"], ["true", "1"], ["[1, 2]", '{"a": 1}'], ["{}", "null"], ['"\\ud800"', '"a"']],
    ids=["text-and-number", "boolean-and-number", "list-and-object", "no-keys", "half-a-character"],
)
@pytest.mark.parametrize("block_bytes", [5, 4 * 2**20])
def test_json_values_that_make_no_column_are_refused_before_a_run_if_needed(
    values: list[str], block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", block_bytes)
    lines = [f'{{"path": "{n}.mp4", "label": {value}}}\n' for n, value in enumerate(values)]
    listed = table_list(tmp_path, "videos.jsonl", "".join(lines).encode())
    with pytest.raises(UsageError, match=r"videos\.jsonl cannot be read .* one type") as caught:
        extra_columns(Settings(file_with_video_paths=str(listed)))
    assert "\n" not in str(caught.value)


def test_json_values_of_several_types_are_allowed_if_only_paths_are_needed(
    tmp_path: Path,
) -> None:
    content = b'\xef\xbb\xbf{"path": "a.mp4", "label": "a"}\n\n{"label": 1, "path": "b.mp4"}'
    listed = table_list(tmp_path, "videos.jsonl", content)
    assert videos(list_file=listed) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"video": "a.mp4"}\n', "no column 'path': .* one of video"),
        (b'{"path": "a.mp4"}\n{"label": 1}\n', "has None in column 'path', which is not a path"),
        (
            b'{"path": "a.mp4"}\n[1]\n',
            r"in row 1; row 0 is line 1\): write one object on each line",
        ),
        (b"\n\na.mp4\n", r"videos\.jsonl cannot be read as JSON Lines .*; row 0 is line 1\)"),
        (b'{"path": 1}\n', r"Column\(/path\) changed from string to number"),
        (b'{"path": "\\ud800"}\n', "cannot be read as JSON Lines"),
        (b"", "is empty"),
    ],
)
def test_json_lines_that_cannot_be_used_are_refused_in_one_sentence(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        videos(list_file=table_list(tmp_path, "videos.jsonl", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_column_of_paths_can_have_any_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"videos{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"url": ["a.mp4"], "path": ["b"]}), path)
    elif suffix == ".jsonl":
        path.write_text('{"url": "a.mp4", "path": "b"}\n')
    else:
        delimiter = "," if suffix == ".csv" else "\t"
        path.write_text(f"path{delimiter}url\nb{delimiter}a.mp4\n")
    settings = Settings(file_with_video_paths=str(path), path_column="url")
    assert list(iter_videos(settings)) == ["a.mp4"]
    table = pa.concat_tables(iter_rows(settings, extra_columns=True))
    assert table.to_pydict() == {"video": [b"a.mp4"], "path": ["b"]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"path,video\na.mp4,b\n", "has a column 'video'"),
        (b"path,clip\na.mp4,b\n", "has a column 'clip'"),
        (b"path,a,a\na.mp4,b,c\n", "has a column 'a'"),
    ],
)
def test_invalid_extra_columns_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    listed = table_list(tmp_path, "videos.csv", content)
    assert videos(list_file=listed) == ["a.mp4"]
    with pytest.raises(UsageError, match=sentence):
        extra_columns(Settings(file_with_video_paths=str(listed)))


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("videos.csv", b"label,path,note\na.mp4,1,\n", ["label", "note"]),
        ("videos.jsonl", b'{"path": "a.mp4"}\n{"path": "b.mp4", "late": 1}\n', ["late"]),
        ("videos.txt", b"a.mp4\n", []),
    ],
)
def test_the_columns_of_a_list_are_known_before_a_run(
    name: str, content: bytes, columns: list[str], tmp_path: Path
) -> None:
    listed = table_list(tmp_path, name, content)
    assert extra_columns(Settings(file_with_video_paths=str(listed))) == columns
    assert {tuple(table.column_names) for table in rows(listed, "x.mp4")} == {("video", *columns)}


def test_a_column_for_a_text_list_is_refused(tmp_path: Path) -> None:
    listed = text_list(tmp_path, "a.mp4\n")
    with pytest.raises(UsageError, match="is read as a text list"):
        list(iter_videos(Settings(file_with_video_paths=str(listed), path_column="url")))


def test_a_limit_gives_the_first_inputs(tmp_path: Path) -> None:
    listed = str(text_list(tmp_path, "b.mp4\nc.mp4\n"))
    settings = Settings(video_paths=("a.mp4",), file_with_video_paths=listed, limit=2)
    assert list(iter_videos(settings)) == ["a.mp4", "b.mp4"]
    assert list(
        select_all(Inputs(partial(iter_videos, settings), partial(iter_rows, settings, True)))
    ) == ["a.mp4", "b.mp4"]
