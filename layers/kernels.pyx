# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""CPU hot paths. Each has a twin, in this folder or in PyTorch itself, and tests that compare the two."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.float cimport FLT_MIN
from libc.math cimport ceil, ceilf, expf, floor, isfinite
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memset

def greedy_nms(const float[:, ::1] boxes, const long long[::1] groups, float iou_threshold):
    """Mark the boxes that greedy non-maximum suppression keeps.

    Args:
        boxes: (N, 4) float32 xyxy, highest score first.
        groups: (N,) int64; boxes of different groups never suppress each other.
        iou_threshold: overlap above which the worse box goes.

    Returns:
        N bytes, 1 for a box that is kept.

    Raises:
        ValueError: the shapes do not fit together.
    """
    cdef Py_ssize_t count = boxes.shape[0]
    cdef Py_ssize_t i, j
    cdef float width, height, intersection, area_i
    if boxes.shape[1] != 4 or groups.shape[0] != count:
        raise ValueError("boxes and groups of different sizes")
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


def fast_nms(
    const float[:, :, ::1] boxes, const float[:, ::1] scores, float iou_threshold,
    Py_ssize_t most, unsigned char[:, ::1] keep,
):
    """Mark the boxes that no better one of their group overlaps: Fast NMS.

    Args:
        boxes: (G, N, 4) xyxy, the best of each group first.
        scores: (G, N).
        iou_threshold: overlap above which the worse box goes.
        most: marks to set; the best boxes of all groups get them.
        keep: (G, N), set to 1 where a box stays; left as it is elsewhere.

    Raises:
        ValueError: the shapes do not fit together.
    """
    cdef Py_ssize_t groups = boxes.shape[0], count = boxes.shape[1], g, i, j, best
    if (
        boxes.shape[2] != 4 or scores.shape[0] != groups or scores.shape[1] != count
        or keep.shape[0] != groups or keep.shape[1] != count
    ):
        raise ValueError("boxes, scores and marks of different sizes")
    cdef Py_ssize_t* next_of = <Py_ssize_t*>calloc(groups + 1, sizeof(Py_ssize_t))
    if next_of == NULL:
        raise MemoryError
    with nogil:
        while most > 0:
            best = -1  # group of the best box that was not looked at yet
            for g in range(groups):
                if next_of[g] < count and (
                    best < 0 or scores[g, next_of[g]] > scores[best, next_of[best]]
                ):
                    best = g
            if best < 0:
                break
            j = next_of[best]
            next_of[best] += 1
            for i in range(j):
                # NaN counts as overlapped, too.
                if not overlap(&boxes[best, i, 0], &boxes[best, j, 0]) <= iou_threshold:
                    break
            else:
                keep[best, j] = 1
                most -= 1
        free(next_of)


cdef inline float overlap(const float* a, const float* b) noexcept nogil:
    """Return the intersection over union of two boxes, as `boxes.box_iou` does."""
    cdef float intersection = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    cdef float union = area(a[0], a[1], a[2], a[3]) + area(b[0], b[1], b[2], b[3]) - intersection
    return intersection / (FLT_MIN if union < FLT_MIN else union)  # NaN stays NaN


cdef inline float area(float x1, float y1, float x2, float y2) noexcept nogil:
    cdef float width = x2 - x1, height = y2 - y1
    return (0 if width < 0 else width) * (0 if height < 0 else height)


cdef inline float clamp(float value, Py_ssize_t high) noexcept nogil:
    """Bring a number, NaN included, into the range from 0 to `high`."""
    if not value > 0:
        return 0
    return value if value < high else <float>high


# --- Prototypes x coefficients, inside the boxes only ---------------------------------------------


def assemble_masks(
    const float[:, :, ::1] prototypes, const float[:, ::1] coefficients,
    const float[:, ::1] boxes, float padding, float[:, :, ::1] out,
):
    """Write sigmoid(prototypes x coefficients) inside widened boxes; leave the rest as it is.

    Args:
        prototypes: (K, h, w).
        coefficients: (N, K).
        boxes: (N, 4) xyxy relative; corners may be swapped or outside the image.
        padding: margin of the boxes in cells.
        out: (N, h, w).

    Raises:
        ValueError: the shapes do not fit together.
    """
    cdef Py_ssize_t count = coefficients.shape[0], channels = coefficients.shape[1]
    cdef Py_ssize_t height = prototypes.shape[1], width = prototypes.shape[2]
    cdef Py_ssize_t i, y, k, x1 = 0, x2 = 0, y1 = 0, y2 = 0
    if (
        prototypes.shape[0] != channels or boxes.shape[0] != count or boxes.shape[1] != 4
        or out.shape[0] != count or out.shape[1] != height or out.shape[2] != width
    ):
        raise ValueError("prototypes, coefficients, boxes and masks of different sizes")
    with nogil:
        for i in range(count):
            cells_inside(boxes[i, 0], boxes[i, 2], width, padding, &x1, &x2)
            cells_inside(boxes[i, 1], boxes[i, 3], height, padding, &y1, &y2)
            for y in range(y1, y2 if x1 < x2 else y1):
                memset(&out[i, y, x1], 0, (x2 - x1) * sizeof(float))
                for k in range(0, channels, 4):
                    add_prototypes(
                        &prototypes[k, y, x1], height * width, &coefficients[i, k],
                        min(channels - k, 4), &out[i, y, x1], x2 - x1,
                    )
                sigmoid(&out[i, y, x1], x2 - x1)


cdef void cells_inside(
    float a, float b, Py_ssize_t cells, float padding, Py_ssize_t* first, Py_ssize_t* end
) noexcept nogil:
    """Find the cells `first <= cell < end` inside an interval; none where a bound is NaN."""
    first[0] = end[0] = 0
    if a == a and b == b:
        first[0] = <Py_ssize_t>ceilf(clamp(min(a, b) * cells - padding, cells))
        end[0] = <Py_ssize_t>ceilf(clamp(max(a, b) * cells + padding, cells))


cdef void add_prototypes(
    const float* a, Py_ssize_t plane, const float* weights, Py_ssize_t channels, float* row,
    Py_ssize_t count,
) noexcept nogil:
    """Add up to four weighted prototypes to a row; loops that compilers turn into vector code."""
    cdef const float* b = a + plane
    cdef const float* c = b + plane
    cdef const float* d = c + plane
    cdef Py_ssize_t k, x
    if channels == 4:
        for x in range(count):
            row[x] += weights[0] * a[x] + weights[1] * b[x] + weights[2] * c[x] + weights[3] * d[x]
        return
    for k in range(channels):
        for x in range(count):
            row[x] += weights[k] * a[k * plane + x]


cdef void sigmoid(float* row, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t x
    for x in range(count):
        row[x] = <float>1 / (<float>1 + expf(-row[x]))


# --- Parts of masks -------------------------------------------------------------------------------


def keep_large_parts(unsigned char[:, :, ::1] masks, float share):
    """Zero the parts of each mask that are small beside its largest, in place.

    Args:
        masks: (N, h, w), 0 or 1; cells are connected by their four sides.
        share: of the cells of the largest part, how many a part needs to stay.

    Raises:
        ValueError: masks of 2^31 cells or more.
    """
    cdef Py_ssize_t count = masks.shape[0], height = masks.shape[1], width = masks.shape[2]
    cdef Py_ssize_t cells = height * width
    cdef Py_ssize_t i
    if cells >= 2**31 - 1:
        raise ValueError("masks of 2^31 cells or more")
    if count == 0 or cells == 0:
        return
    cdef int* parts = <int*>malloc(cells * sizeof(int))
    cdef int* sizes = <int*>malloc((cells + 1) * sizeof(int))
    cdef int* queue = <int*>malloc(cells * sizeof(int))
    if parts == NULL or sizes == NULL or queue == NULL:
        free(parts)
        free(sizes)
        free(queue)
        raise MemoryError
    with nogil:
        for i in range(count):
            clear_small_parts(&masks[i, 0, 0], height, width, share, parts, sizes, queue)
        free(parts)
        free(sizes)
        free(queue)


cdef void clear_small_parts(
    unsigned char* mask, Py_ssize_t height, Py_ssize_t width, float share,
    int* parts, int* sizes, int* queue,
) noexcept nogil:
    """Number the parts of one mask from 1, count their cells, and clear the small ones."""
    cdef Py_ssize_t cells = height * width
    cdef Py_ssize_t start, cell, x, end
    cdef int last = 0, largest = 0
    memset(parts, 0, cells * sizeof(int))
    for start in range(cells):
        if not mask[start] or parts[start]:
            continue
        last += 1
        parts[start], queue[0], sizes[last], end = last, <int>start, 0, 1
        # The size counts what was taken from the queue, and so is where its next cell is.
        while sizes[last] < end:
            cell = queue[sizes[last]]
            sizes[last] += 1
            x = cell % width
            if x > 0:
                end = reach(mask, parts, queue, cell - 1, last, end)
            if x < width - 1:
                end = reach(mask, parts, queue, cell + 1, last, end)
            if cell >= width:
                end = reach(mask, parts, queue, cell - width, last, end)
            if cell < cells - width:
                end = reach(mask, parts, queue, cell + width, last, end)
        largest = max(largest, sizes[last])
    for cell in range(cells if last > 1 else 0):
        if parts[cell] and sizes[parts[cell]] < share * largest:
            mask[cell] = 0


cdef inline Py_ssize_t reach(
    const unsigned char* mask, int* parts, int* queue, Py_ssize_t cell, int part, Py_ssize_t end
) noexcept nogil:
    """Put a cell of the mask that has no part yet at the end of the queue; return where that is."""
    if mask[cell] and not parts[cell]:
        parts[cell], queue[end] = part, <int>cell
        return end + 1
    return end


include "depthwise.pxi"
include "mask_pixels.pxi"
