"""Exceptions and error codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Stage = Literal["open", "read", "decode", "encode", "write"]


class RayclipError(Exception):
    """A command or call failed as a whole. The message is one sentence for the user."""

    exit_status = 1


class UsageError(RayclipError):
    """The command or call is invalid; nothing was started."""

    exit_status = 2


class RunStopped(RayclipError):
    """The run ended early; finished videos are kept."""

    exit_status = 3


class WeightsUnavailable(RayclipError):
    """A model's weights are unavailable: the network, a mirror or a checksum failed."""

    exit_status = 3


class Code(StrEnum):
    """Why a video failed. The values are public, since ``failures.jsonl`` has them.

    Attributes:
        stages: the stages in which it can occur.
        meaning: the cause, as one sentence.
        remedy: what to do, as one sentence.
    """

    stages: tuple[str, ...]
    meaning: str
    remedy: str

    def __new__(cls, value: str, stages: str = "", meaning: str = "", remedy: str = "") -> Code:
        # defaults only for type checkers, which see Code("not_found") as a call of this
        code = str.__new__(cls, value)
        code._value_ = value
        code.stages = tuple(stages.split())
        code.meaning = meaning
        code.remedy = remedy
        return code

    NOT_FOUND = "not_found", "open", "There is no such file.", "Check the path or the URL."
    IS_A_FOLDER = (
        "is_a_folder",
        "open",
        "The path in the list is a folder.",
        "Name the videos in it, or make a video of it if it holds images.",
    )
    NOT_A_FILE = (
        "not_a_file",
        "open",
        "The path is a pipe, a socket or a device.",
        "Save the video to a file first.",
    )
    NO_IMAGES = (
        "no_images",
        "open",
        "The input of a run with `frames_folders` is no folder, or holds no jpg, png or webp file.",
        "Name folders that hold the images themselves.",
    )
    EMPTY_FILE = "empty_file", "open", "The file has no bytes.", "Copy or download it again."
    NOT_A_VIDEO = (
        "not_a_video",
        "open",
        "libav does not recognise the file's format.",
        "Look at the file: it may be text, an error page or a damaged download.",
    )
    TRUNCATED = (
        "truncated",
        "open",
        "The file begins as an mp4, but its index is missing or damaged.",
        "Copy or download it again, since its end is probably missing.",
    )
    IS_A_PLAYLIST = (
        "is_a_playlist",
        "open",
        "The file is a playlist (HLS, DASH or ffconcat), and playlists are not followed.",
        "Name the videos in it.",
    )
    REFUSED_PROTOCOL = (
        "refused_protocol",
        "open",
        "URLs of this protocol name other files to open, and are refused.",
        "Give the URL of the video itself.",
    )
    NO_VIDEO_STREAM = (
        "no_video_stream",
        "open",
        "The file has no video stream: it may hold only sound.",
        "Remove it from the list, or get a copy with video.",
    )
    NO_DECODER = (
        "no_decoder",
        "open",
        "libav has no decoder for the video stream.",
        "Convert it to H.264 with a program that can decode it.",
    )
    NO_TIME_BASE = (
        "no_time_base",
        "open",
        "The video stream has no time base, so its frames have no times.",
        "Remux the file with ffmpeg.",
    )
    TOO_LARGE = (
        "too_large",
        "open decode",
        "A frame has more than 8192 x 8192 pixels.",
        "Scale the video down.",
    )
    NO_VIDEO = (
        "no_video",
        "open",
        "This row of a dataset holds null instead of a video (`rayclip.encode`).",
        "Filter such rows out.",
    )
    TAR_DAMAGED = (
        "tar_damaged",
        "read",
        "The tar file is damaged or truncated. Its videos before that place are extracted.",
        "Copy or download it again.",
    )
    TAR_WITHOUT_VIDEOS = (
        "tar_without_videos",
        "open",
        "The tar file holds no file with the suffix of a video.",
        "Remove it from the inputs, or give its videos such a suffix.",
    )
    SAME_NAME = (
        "same_name",
        "open",
        "An earlier video of the same tar file has the same name without its suffix.",
        "Rename one of them.",
    )
    ACCESS_DENIED = (
        "access_denied",
        "read",
        "The storage denies access to the file.",
        "Check its permissions and your credentials.",
    )
    READ_FAILED = (
        "read_failed",
        "read",
        "The network, the server or the disk failed while the video was read.",
        "Rerun the same command; if it fails again, check the storage named in the message.",
    )
    NOT_SEEKABLE = (
        "not_seekable",
        "read",
        "`extraction_total` reads a video twice, and this source cannot seek.",
        "Copy the video to a storage that can, or use `extraction_fps`.",
    )
    ENCRYPTED = "encrypted", "decode", "The video is encrypted.", "Use an unencrypted copy."
    BAD_IMAGE = (
        "bad_image",
        "decode",
        "An image in a folder of frames cannot be decoded.",
        "Replace or remove the image that the message names.",
    )
    NO_FRAMES = (
        "no_frames",
        "decode",
        "No frame could be decoded.",
        "Copy or download the file again; play it to see whether it is damaged.",
    )
    EMPTY_RANGE = (
        "empty_range",
        "open decode",
        "The range has no frame: it is empty, ends before it begins, or is beyond the end.",
        "Correct `start` and `end`, or the row's `start_s` and `end_s`.",
    )
    NO_SIZE = (
        "no_size",
        "decode",
        "The video stream states no frame size, or one that is too large.",
        "Copy or download the file again; scale it down if it is larger than 8192 x 8192.",
    )
    ANIMATED_WEBP = (
        "animated_webp",
        "decode",
        "libav cannot decode animated WebP.",
        "Convert it to a video or a GIF.",
    )
    UNSUPPORTED_PIXELS = (
        "unsupported_pixels",
        "decode",
        "The pixel format cannot be converted to RGB.",
        "Convert the video to yuv420p with ffmpeg.",
    )
    NOT_DIVISIBLE = (
        "not_divisible",
        "decode",
        "A segment of a long video cannot be decoded by itself.",
        "Nothing: the video is then decoded undivided.",
    )
    TOO_MUCH_MEMORY = (
        "too_much_memory",
        "decode",
        "Decoding takes more memory than a video may have.",
        "Scale the video down, or re-encode it.",
    )
    WORKER_CRASHED = (
        "worker_crashed",
        "decode",
        "The decoding process crashed on this video at every attempt.",
        "Re-encode the video, since it is probably damaged in a way that crashes libav.",
    )
    WORKER_HUNG = (
        "worker_hung",
        "decode",
        "libav made no progress on this video for five minutes at every attempt.",
        "Re-encode the video, or check its storage if that is slow.",
    )
    WORKER_KILLED = (
        "worker_killed",
        "decode",
        "The decoding process was killed ten times on this video, probably for lack of memory.",
        "Use machines with more memory, or fewer decoding processes per machine.",
    )
    ENCODER_FAILED = (
        "encoder_failed",
        "encode",
        "The model failed on frames of this video.",
        "Rerun the same command; if it fails again, look at the device error in the message.",
    )
    NOT_FINITE = (
        "not_finite",
        "encode",
        "A feature is NaN or infinite, or does not fit into float16.",
        "Use `--precision fp32` and `--feature-dtype float32`.",
    )
    NOT_REENCODABLE = (
        "not_reencodable",
        "encode",
        "libx264 refuses the frames of the copy that `--keep-tmp-files` keeps.",
        "Run without `--keep-tmp-files`, or scale the video down.",
    )
    WRITE_FAILED = (
        "write_failed",
        "write",
        "A file of this video could not be written.",
        "Rerun the same command; if it fails again, check the storage named in the message.",
    )
    NO_TEMPORARY_FILE = (
        "no_temporary_file",
        "write",
        "The features of a long video could not be written to a temporary file.",
        "Free space in the temporary folder, or set `TMPDIR` to a larger one.",
    )
    INTERNAL_ERROR = (
        "internal_error",
        "decode write",
        "rayclip raised an unexpected exception, which is probably a bug.",
        "Report it with the traceback in the log.",
    )


class VideoError(Exception):
    """One video failed; the others continue.

    Attributes:
        stage: the stage that failed: open, read, decode, encode or write.
        code: a stable code for programs, e.g. ``no_video_stream``; docs/errors.md lists them.
        message: one sentence for users.
    """

    def __init__(self, stage: Stage, code: Code, message: str) -> None:
        super().__init__(stage, code, message)
        self.stage: Stage = stage
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class BadVideo(VideoError):
    """The video itself is at fault: it cannot be opened (``open``) or decoded (``decode``)."""


class CredentialsRefused(VideoError):
    """The storage refused the credentials, as it will for all its other videos."""
