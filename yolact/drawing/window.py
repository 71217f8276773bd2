"""Pictures in a window, if there is a display."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import cv2

from data.images import Image
from data.problems import printable

_ESCAPE = 27
_NO_DISPLAY = "no display; write to a file with :out"


def show(image: Image, title: str = "YOLACT", wait_ms: int = 0) -> bool:
    """Show an image in a window, from the main thread only.

    Args:
        image: (H, W, 3) uint8 RGB.
        title: the window's name; the same name reuses the window.
        wait_ms: time to wait for a key; 0 waits until a key is pressed or the window is closed.

    Returns:
        False once the user pressed Esc or closed the window.

    Raises:
        OSError: there is no display.
    """
    title = printable(title)  # OpenCV crashes at half of a character, as in a file's name
    if not has_display():
        raise OSError(_NO_DISPLAY)
    try:
        if not _is_open(title):
            _open_window(title, (image.shape[0], image.shape[1]))
        cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(wait_ms or 50)
        while not wait_ms and key < 0 and _is_open(title):
            key = cv2.waitKey(50)
    except cv2.error as error:  # an OpenCV built without windows
        raise OSError(_NO_DISPLAY) from error
    return key & 0xFF != _ESCAPE and _is_open(title)


def close_window(title: str = "YOLACT") -> None:
    """Close a window opened by `show`, if it is still there."""
    if has_display() and _is_open(printable(title)):
        cv2.destroyWindow(printable(title))


@cache
def has_display() -> bool:
    """Tell whether windows can be opened; tested only once.

    On Linux the window system aborts the whole process if no display answers, so a child process
    tries first.
    """
    if not sys.platform.startswith("linux"):
        return True
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    probe = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
    try:
        ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def _is_open(title: str) -> bool:
    try:
        return cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # no window has ever been opened
        return False


def _open_window(title: str, image_hw: tuple[int, int]) -> None:
    """Open a resizable window that shows the image whole on a usual screen."""
    shrink = min(1.0, 900 / image_hw[0], 1600 / image_hw[1])
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    cv2.resizeWindow(title, round(image_hw[1] * shrink), round(image_hw[0] * shrink))
