# Pixels of one mask at image scale; part of kernels.pyx.
#
# `soft_mask` is (h, w) float32 in [0, 1]; `frame` is the region of the image that it covers, x1, y1,
# x2, y2 in pixels; `window` is x1, y1, x2, y2 in whole pixels, and no pixel outside it is touched. A
# pixel belongs to the mask where the soft mask, upsampled bilinearly, exceeds 0.5.

cdef enum:
    BLOCK = 8  # columns of a bitmap compared at a time; as many bytes fill a register
    FAR = 2147483647  # pixels; no image is as large


cdef struct Axis:
    # How pixel centres fall on the cells of one axis.
    float start
    float scale
    Py_ssize_t cells


cdef struct Sampler:
    # What the rows of one window have in common.
    const float* corner  # of the soft mask, at the first column of cells that the window touches
    Axis vertical
    Py_ssize_t stride  # of the soft mask
    Py_ssize_t cells  # columns of cells, each with the pixels from its centre to the next one's
    Py_ssize_t columns  # the same, and the last one's neighbour unless it is the edge
    Py_ssize_t* ends  # of the pixels of each column of cells, counted from the window's side
    float* weights  # of each pixel towards the cell on its right
    float* row  # the soft mask at the height of one row of pixels


cdef Axis make_axis(float start, float end, Py_ssize_t cells) noexcept nogil:
    cdef float extent = end - start
    if not extent > <float>1e-6:  # none, or NaN
        extent = <float>1e-6
    return Axis(start, <float>1 / extent * cells, cells)


cdef Py_ssize_t locate(Axis axis, Py_ssize_t pixel, float* weight) noexcept nogil:
    """Find the cell whose centre is at or before a pixel's, and the weight of the next cell."""
    cdef float source = (<float>pixel + <float>0.5 - axis.start) * axis.scale - <float>0.5
    source = clamp(source, axis.cells - 1)
    cdef Py_ssize_t cell = <Py_ssize_t>source
    weight[0] = source - <float>cell
    return cell


cdef Sampler* open_sampler(
    const float[:, ::1] soft_mask, frame, Py_ssize_t x1, Py_ssize_t x2
) except NULL:
    """Prepare to sample the pixels x1 <= x < x2, at least one, of any row. To be freed."""
    cdef float left, top, right, bottom, weight = 0
    left, top, right, bottom = frame
    if soft_mask.shape[0] == 0 or soft_mask.shape[1] == 0:
        raise ValueError("a soft mask without cells")
    cdef Axis axis = make_axis(left, right, soft_mask.shape[1])
    cdef Py_ssize_t first = locate(axis, x1, &weight), count = x2 - x1, x, cell
    cdef Py_ssize_t cells = locate(axis, x2 - 1, &weight) - first + 1
    cdef Sampler* sampler = <Sampler*>malloc(
        sizeof(Sampler) + cells * sizeof(Py_ssize_t) + (count + cells + 1) * sizeof(float)
    )
    if sampler == NULL:
        raise MemoryError
    sampler.corner = &soft_mask[0, first]
    sampler.vertical = make_axis(top, bottom, soft_mask.shape[0])
    sampler.stride, sampler.cells = soft_mask.shape[1], cells
    sampler.columns = min(cells + 1, sampler.stride - first)
    sampler.ends = <Py_ssize_t*>(sampler + 1)
    sampler.weights = <float*>(sampler.ends + cells)
    sampler.row = sampler.weights + count
    memset(sampler.ends, 0, cells * sizeof(Py_ssize_t))
    for x in range(count):
        cell = locate(axis, x1 + x, &sampler.weights[x]) - first
        sampler.ends[max(0, min(cell, cells - 1))] = x + 1
    for cell in range(1, cells):  # some have no pixel, where the image is smaller than the grid
        sampler.ends[cell] = max(sampler.ends[cell], sampler.ends[cell - 1])
    return sampler


cdef void sample_row(Sampler* sampler, Py_ssize_t y, unsigned char* out) noexcept nogil:
    """Write 1 for each pixel of row y of the image that exceeds 0.5, else 0."""
    cdef Py_ssize_t cell = 0, x = 0, end
    cdef float* row = sampler.row
    cdef bint above
    interpolate_row(sampler, y)
    while cell < sampler.cells:
        above = row[cell] > <float>0.5
        if above != (row[cell + 1] > <float>0.5):
            # The outline passes between these two centres.
            end = sampler.ends[cell]
            while x < end:
                out[x] = lerp(row[cell], row[cell + 1], sampler.weights[x]) > <float>0.5
                x += 1
            cell += 1
        else:
            # Between centres on one side of the threshold every pixel is on that side.
            while cell < sampler.cells and above == (row[cell + 1] > <float>0.5):
                cell += 1
            end = sampler.ends[cell - 1]
            memset(out + x, above, end - x)
            x = end


cdef void interpolate_row(Sampler* sampler, Py_ssize_t y) noexcept nogil:
    cdef float weight = 0
    cdef Py_ssize_t top = locate(sampler.vertical, y, &weight), cell
    cdef Py_ssize_t bottom = min(top + 1, sampler.vertical.cells - 1)
    cdef const float* upper = sampler.corner + top * sampler.stride
    cdef const float* lower = sampler.corner + bottom * sampler.stride
    for cell in range(sampler.columns):
        sampler.row[cell] = lerp(upper[cell], lower[cell], weight)
    if sampler.columns == sampler.cells:  # the edge is held
        sampler.row[sampler.cells] = sampler.row[sampler.cells - 1]


cdef inline float lerp(float a, float b, float weight) noexcept nogil:
    return (b - a) * weight + a


def sample_mask(const float[:, ::1] soft_mask, frame, window, unsigned char[:, :] out):
    """Make the bitmap of a mask.

    Args:
        out: (y2 - y1, x2 - x1), gets 1 where the mask is, else 0.

    Raises:
        ValueError: `out` is of another size than the window, or has gaps in its rows.
    """
    cdef Py_ssize_t x1, y1, x2, y2, y
    x1, y1, x2, y2 = window
    # The difference of two places this near does not overflow.
    if not (-FAR < x1 <= x2 < FAR and -FAR < y1 <= y2 < FAR):
        raise ValueError(f"the window {window}: expected x1 <= x2 and y1 <= y2, within 31 bits")
    if out.shape[0] != y2 - y1 or out.shape[1] != x2 - x1:
        raise ValueError(f"a bitmap of {out.shape[1]} x {out.shape[0]} for the window {window}")
    if out.shape[1] > 1 and out.strides[1] != 1:
        raise ValueError("a bitmap with gaps in its rows")
    if x1 == x2 or y1 == y2:
        return
    cdef Sampler* sampler = open_sampler(soft_mask, frame, x1, x2)
    with nogil:
        for y in range(y1, y2):
            sample_row(sampler, y, &out[y - y1, 0])
        free(sampler)


def blend_mask(
    const float[:, ::1] soft_mask, frame, window,
    unsigned char[:, :, :] canvas, const unsigned char[:, ::1] table,
):
    """Recolour the pixels of a mask.

    Args:
        canvas: (H, W, 3), changed in place.
        table: (256, 3) the new value for each old one.

    Raises:
        ValueError: the window leaves the canvas, or there are not three channels.
    """
    cdef Py_ssize_t x1, y1, x2, y2, x, y
    x1, y1, x2, y2 = window
    if not (0 <= x1 <= x2 <= canvas.shape[1] and 0 <= y1 <= y2 <= canvas.shape[0]):
        raise ValueError(f"the window {window} on {canvas.shape[1]} x {canvas.shape[0]} pixels")
    if canvas.shape[2] != 3 or table.shape[0] != 256 or table.shape[1] != 3:
        raise ValueError("not three channels of 256 values")
    if x1 == x2 or y1 == y2:
        return
    cdef Sampler* sampler = open_sampler(soft_mask, frame, x1, x2)
    cdef unsigned char* inside = <unsigned char*>malloc(x2 - x1)
    if inside == NULL:
        free(sampler)
        raise MemoryError
    with nogil:
        for y in range(y1, y2):
            sample_row(sampler, y, inside)
            for x in range(x1, x2):
                if inside[x - x1]:
                    canvas[y, x, 0] = table[canvas[y, x, 0], 0]
                    canvas[y, x, 1] = table[canvas[y, x, 1], 1]
                    canvas[y, x, 2] = table[canvas[y, x, 2], 2]
        free(inside)
        free(sampler)


def mask_window(const float[:, ::1] soft_mask, frame, Py_ssize_t height, Py_ssize_t width):
    """Bound the pixels of a mask in an image.

    Returns:
        The window x1, y1, x2, y2 in whole pixels; four zeros for an empty mask.
    """
    cdef Py_ssize_t rows = soft_mask.shape[0], cells = soft_mask.shape[1]
    cdef Py_ssize_t x, y, top = rows, bottom = 0, left = 0, right = cells
    cdef double x1, y1, x2, y2  # a float counts pixels only up to 2^24
    cdef int occupied
    x1, y1, x2, y2 = frame
    # An extent that is infinite or NaN counts as none.
    if not (x2 - x1 > 0 and isfinite(x2 - x1) and y2 - y1 > 0 and isfinite(y2 - y1)):
        return 0, 0, 0, 0
    cdef int* columns = <int*>calloc(cells + 1, sizeof(int))
    if columns == NULL:
        raise MemoryError
    with nogil:
        for y in range(rows):
            occupied = 0
            for x in range(cells):
                occupied |= soft_mask[y, x] > <float>0.5
            if occupied:
                top, bottom = min(top, y), y + 1
                for x in range(cells):
                    columns[x] |= soft_mask[y, x] > <float>0.5
        while left < right and not columns[left]:
            left += 1
        while left < right and not columns[right - 1]:
            right -= 1
        free(columns)
    if top >= bottom:
        return 0, 0, 0, 0
    left, right = pixels_near(left, right, cells, x1, x2, max(width, 0))
    top, bottom = pixels_near(top, bottom, rows, y1, y2, max(height, 0))
    return left, top, right, bottom


cdef (Py_ssize_t, Py_ssize_t) pixels_near(
    Py_ssize_t first, Py_ssize_t end, Py_ssize_t cells, double low, double high, Py_ssize_t size
) noexcept:
    """Bound the pixels that some cells have a part in, up to the centres of their neighbours."""
    cdef double start = low, per_cell = (high - low) / cells
    if first > 0:
        low = start + (first - 0.5) * per_cell
    if end < cells:
        high = start + (end + 0.5) * per_cell
    low, high = min(max(floor(low), 0), size), min(max(ceil(high), 0), size)
    return <Py_ssize_t>low, <Py_ssize_t>max(low, high)


# --- COCO's run lengths ---------------------------------------------------------------------------


cdef struct RunLengths:
    # Runs of zeros and ones by turns, over all pixels of an image column by column.
    char* text
    Py_ssize_t size, capacity
    Py_ssize_t count  # of runs written
    Py_ssize_t position  # where they end
    Py_ssize_t start, end  # of the run of ones that may yet go on
    Py_ssize_t[2] lengths  # of the last two runs


def encode_mask(
    const unsigned char[:, :] bitmap, Py_ssize_t x1, Py_ssize_t y1,
    Py_ssize_t height, Py_ssize_t width,
):
    """Write COCO's compressed run lengths of an image that is 0 but for a bitmap.

    Args:
        bitmap: 0 or 1.
        x1: column of the image where the bitmap begins.
        y1: row of the image where the bitmap begins.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        The bytes that pycocotools writes.

    Raises:
        ValueError: the bitmap leaves the image, or has gaps in its rows.
    """
    cdef Py_ssize_t rows = bitmap.shape[0], columns = bitmap.shape[1], x
    cdef RunLengths runs
    cdef Py_ssize_t* changes
    cdef bint done
    memset(&runs, 0, sizeof(RunLengths))
    # The product of two sides below 2^31 does not overflow.
    if not (
        0 <= x1 <= width < 2147483648 and columns <= width - x1
        and 0 <= y1 <= height < 2147483648 and rows <= height - y1
    ):
        raise ValueError(f"{columns} x {rows} pixels at {x1}, {y1} of {width} x {height}")
    if columns > 1 and bitmap.strides[1] != 1:
        raise ValueError("a bitmap with gaps in its rows")
    changes = <Py_ssize_t*>malloc(BLOCK * (rows + 1) * sizeof(Py_ssize_t))
    done = changes != NULL
    with nogil:
        for x in range(0, columns if rows else 0, 8):
            done = done and add_columns(
                &runs, &bitmap[0, x], min(columns - x, BLOCK), bitmap.strides[0], rows,
                (x1 + x) * height + y1, height, changes,
            )
        done = done and write_ones(&runs)
        if runs.position < height * width or runs.count == 0:
            done = done and write_run(&runs, height * width - runs.position)
        free(changes)
    try:
        if not done:
            raise MemoryError
        return PyBytes_FromStringAndSize(runs.text, runs.size)
    finally:
        free(runs.text)


cdef bint add_columns(
    RunLengths* runs, const unsigned char* row, Py_ssize_t columns, Py_ssize_t stride,
    Py_ssize_t rows, Py_ssize_t start, Py_ssize_t height, Py_ssize_t* changes,
) noexcept nogil:
    """Add the ones of up to BLOCK columns, the first at position `start`; False without memory."""
    cdef unsigned char[BLOCK] zeros
    cdef Py_ssize_t[BLOCK] counts
    cdef Py_ssize_t x, y, i
    cdef Py_ssize_t* column
    cdef const unsigned char* above = zeros
    memset(zeros, 0, BLOCK)
    memset(counts, 0, sizeof(counts))
    for y in range(rows):
        if columns < BLOCK or memcmp(above, row, BLOCK) != 0:
            for x in range(columns):
                if above[x] != row[x]:
                    changes[x * (rows + 1) + counts[x]] = y
                    counts[x] += 1
        above, row = row, row + stride
    for x in range(columns):
        column = changes + x * (rows + 1)
        column[counts[x]] = rows  # ends the last run where none of the changes does
        for i in range(0, counts[x], 2):
            if not add_ones(runs, start + column[i], start + column[i + 1]):
                return False
        start += height
    return True


cdef bint add_ones(RunLengths* runs, Py_ssize_t start, Py_ssize_t end) noexcept nogil:
    """Add a run of ones, which may go on from the column before."""
    if start != runs.end:
        if not write_ones(runs):
            return False
        runs.start = start
    runs.end = end
    return True


cdef bint write_ones(RunLengths* runs) noexcept nogil:
    """Write the run of ones at hand, if there is one, after the zeros before it."""
    if runs.start == runs.end:
        return True
    return write_run(runs, runs.start - runs.position) and write_run(runs, runs.end - runs.start)


cdef bint write_run(RunLengths* runs, Py_ssize_t length) noexcept nogil:
    """Write a run, five bits to a letter; from the fourth on its difference to the last but one."""
    cdef Py_ssize_t number = length, code
    cdef bint more = True
    cdef char* text
    if runs.size + 16 > runs.capacity:
        text = <char*>realloc(runs.text, 2 * runs.capacity + 64)
        if text == NULL:
            return False
        runs.text, runs.capacity = text, 2 * runs.capacity + 64
    if runs.count > 2:
        number -= runs.lengths[runs.count % 2]
    runs.lengths[runs.count % 2] = length
    runs.count += 1
    runs.position += length
    while more:
        code = number & 31
        number >>= 5
        # Done when nothing but copies of the last sign bit is left.
        more = number != (-1 if code & 16 else 0)
        runs.text[runs.size] = <char>(48 + code + 32 * more)
        runs.size += 1
    return True
