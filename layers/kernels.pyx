# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""CPU hot paths. Each has a tensor twin in this folder, which the tests hold it equal to."""

from libc.stdlib cimport calloc, free


def greedy_nms(const float[:, ::1] boxes, const long long[::1] groups, float iou_threshold):
    """Mark the boxes that greedy non-maximum suppression keeps.

    Args:
        boxes: (N, 4) float32 xyxy, highest score first.
        groups: (N,) int64; boxes of different groups never suppress each other.
        iou_threshold: overlap above which the worse box goes.

    Returns:
        N bytes, 1 for a box that is kept.
    """
    cdef Py_ssize_t count = boxes.shape[0]
    cdef Py_ssize_t i, j
    cdef float width, height, intersection, area_i
    keep = bytearray(count)
    if count == 0:
        return keep
    cdef unsigned char[::1] kept = keep
    cdef unsigned char* dead = <unsigned char*>calloc(count, 1)
    cdef float* areas = <float*>calloc(count, sizeof(float))
    if dead == NULL or areas == NULL:
        free(dead)
        free(areas)
        raise MemoryError
    with nogil:
        for i in range(count):
            areas[i] = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
        for i in range(count):
            if dead[i]:
                continue
            kept[i] = 1
            area_i = areas[i]
            for j in range(i + 1, count):
                if dead[j] or groups[j] != groups[i]:
                    continue
                width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
                height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
                if width <= 0 or height <= 0:
                    continue
                intersection = width * height
                if intersection / (area_i + areas[j] - intersection) > iou_threshold:
                    dead[j] = 1
        free(dead)
        free(areas)
    return keep
