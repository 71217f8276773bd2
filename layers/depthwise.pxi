# --- The gradient of a depthwise convolution's weights ---------------------------------------------

cdef extern from *:
    """
    #define LANES 16

    /* Compiled for each of these processors; which one is told when the library is loaded. */
    #if defined(__GLIBC__) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) \\
        && !defined(__SANITIZE_ADDRESS__)
    __attribute__((target_clones("avx512f", "avx2", "default")))
    #endif
    static void add_products(
        const float *row, Py_ssize_t step, const float *others, Py_ssize_t count, float *sums)
    {
        float totals[LANES];
        memcpy(totals, sums, sizeof totals);
        for (; count > 0; count--, row += step, others += LANES)
            for (int lane = 0; lane < LANES; lane++)
                totals[lane] += row[lane] * others[lane];
        memcpy(sums, totals, sizeof totals);
    }
    """
    enum: LANES  # channels at a time: as many floats as the widest vectors hold
    void add_products(
        const float* row, Py_ssize_t step, const float* others, Py_ssize_t count, float* sums
    ) noexcept nogil

ctypedef fused number:
    float
    unsigned short  # the bits of a bfloat16: the upper half of a float's

ctypedef union Bits:
    unsigned int whole
    float value


def depthwise_weight_gradient(
    const number[:, :, :, ::1] x, const number[:, :, :, ::1] gradient, Py_ssize_t stride,
    Py_ssize_t padding, float[:, :, ::1] out,
):
    """Add the gradient of the weights of a depthwise convolution.

    Args:
        x: (B, H, W, C), what was convolved.
        gradient: (B, h, w, C), of the result, of the type of `x`.
        stride: of the convolution, less than 2^31.
        padding: with zeros, on all sides; less than k.
        out: (k, k, C), added to.

    Raises:
        ValueError: the shapes do not fit together.
    """
    cdef Py_ssize_t size = out.shape[0], channels = out.shape[2], n, block
    cdef Py_ssize_t height = x.shape[1], width
    cdef Py_ssize_t rows = gradient.shape[1], columns = gradient.shape[2]
    if (
        size < 1 or out.shape[1] != size or not 1 <= stride < 2**31 or not 0 <= padding < size
        or x.shape[0] != gradient.shape[0] or x.shape[3] != channels
        or gradient.shape[3] != channels
        or rows != outputs(x.shape[1], size, stride, padding)
        or columns != outputs(x.shape[2], size, stride, padding)
    ):
        raise ValueError("inputs, gradients and weights of sizes that do not fit together")
    width = x.shape[2] + 2 * padding
    if 0 in (x.shape[0], height, x.shape[2], channels, rows, columns):
        return
    # One image's planes of as many channels as there are lanes, the input's with its sides padded.
    cdef float* inputs = <float*>calloc(height * width * LANES, sizeof(float))
    cdef float* steps = <float*>calloc(rows * columns * LANES, sizeof(float))
    if inputs == NULL or steps == NULL:
        free(inputs)
        free(steps)
        raise MemoryError
    with nogil:
        for n in range(x.shape[0]):
            for block in range((channels + LANES - 1) // LANES):
                gather(x, n, block * LANES, padding, inputs)
                gather(gradient, n, block * LANES, 0, steps)
                add_taps(
                    inputs, height, width, steps, rows, columns, stride, padding, out,
                    block * LANES,
                )
        free(inputs)
        free(steps)


cdef inline Py_ssize_t outputs(
    Py_ssize_t side, Py_ssize_t size, Py_ssize_t stride, Py_ssize_t padding
) noexcept nogil:
    """Count the positions of a kernel along a side."""
    cdef Py_ssize_t room = side + 2 * padding - size
    return 0 if room < 0 else room // stride + 1


cdef void gather(
    const number[:, :, :, ::1] planes, Py_ssize_t n, Py_ssize_t first, Py_ssize_t padding,
    float* rows,
) noexcept nogil:
    """Copy channels from `first` on of one image as floats; what is beside them stays zero."""
    cdef Py_ssize_t width = planes.shape[2], lanes = min(planes.shape[3] - first, LANES), y, x, c
    cdef const number* pixel
    cdef Bits bits
    for y in range(planes.shape[1]):
        rows += padding * LANES
        for x in range(width):
            pixel = &planes[n, y, x, first]
            for c in range(lanes):
                if number is float:
                    rows[c] = pixel[c]
                else:
                    bits.whole = <unsigned int>pixel[c] << 16
                    rows[c] = bits.value
            for c in range(lanes, LANES):
                rows[c] = 0
            rows += LANES
        rows += padding * LANES


cdef void add_taps(
    const float* inputs, Py_ssize_t height, Py_ssize_t width, const float* steps,
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t stride, Py_ssize_t padding,
    float[:, :, ::1] out, Py_ssize_t first,
) noexcept nogil:
    """Add to each tap of the kernel the products of what it met and the gradients there."""
    cdef float[LANES] sums
    cdef Py_ssize_t i, j, y, c
    for i in range(out.shape[0]):
        for j in range(out.shape[0]):
            memset(sums, 0, sizeof(sums))
            for y in range(rows):
                if not 0 <= y * stride + i - padding < height:
                    continue
                add_products(
                    inputs + ((y * stride + i - padding) * width + j) * LANES, stride * LANES,
                    steps + y * columns * LANES, columns, sums,
                )
            for c in range(min(out.shape[2] - first, LANES)):
                out[i, j, first + c] += sums[c]
