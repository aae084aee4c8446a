// Rows and columns as float16, what is lost by that, and the numbers of each row that its bounds are made of; the
// derivation is in kernels/gpu/bound.py.

// Where coordinate j of row i lies: side by side (panel 0), or in panels of ``panel`` rows x 64 coordinates, each as
// the fused kernel wants it in shared memory: rows of 128 bytes, whose 16-byte pieces are exchanged by the row's number.
static __device__ __forceinline__ long long half_place(long long i, long long j, long long width, long long panel) {
    if (!panel) return i * width + j;
    long long r = i % panel, piece = (j % 64) / 8;
    return ((i / panel) * (width / 64) + j / 64) * (panel * 64) + r * 64 + ((piece ^ (r & 7)) * 8) + j % 8;
}

// The power of two that brings ``largest`` to between 2^13 and 2^14, within 2^-100 to 2^100.
static __device__ __forceinline__ double row_scale(double largest) {
    if (!(largest > 7.888609052210118e-31)) return 1.2676506002282294e30;  // 2^-100, 2^100
    long long exponent = ((__double_as_longlong(largest) >> 52) & 0x7FF) - 1023;
    long long wanted = 13 - exponent;
    wanted = wanted > 100 ? 100 : (wanted < -100 ? -100 : wanted);
    return __longlong_as_double((wanted + 1023) << 52);
}

// ``kind``: 0 float32 rows for the float32 route, 1 float16 of the shifted and scaled row, 2 the row's own bits.
// ``write`` 0: only the numbers. Rows from ``count`` to ``places``, coordinates from ``dims`` to ``width`` are zeros.
template <typename Row>
static __device__ __forceinline__ void ready_rows(
    const Row* rows, const double* norms, long long unit, long long count, long long dims, const double* origin,
    double scale, double farthest, const int* labels, const double* values, long long kind, long long write,
    long long places, long long width, long long panel, float* singles, Half* halves, double* reach, double* slack,
    float* gain, long long* upper, unsigned char* wild) {
    ONCE_A_BLOCK
    __shared__ double sums[THREADS], most[THREADS], factor[ROWS_A_BLOCK];
    __shared__ int beyond[ROWS_A_BLOCK];
    long long first = (long long)blockIdx.x * ROWS_A_BLOCK;
    const double infinity = __longlong_as_double(0x7FF0000000000000LL), tiny = 7.888609052210118e-31;  // 2^-100
    EACH_THREAD(t) {
        long long i = first + t / 32;
        double sum = 0.0, greatest = 0.0;
        if (i < count) {
            double norm = norm_of(norms, i, unit);
            for (long long j = t % 32; j < dims; j += 32) {
                double a = (coordinate(rows, i * dims + j, unit, norm) - origin[j]) * scale;
                sum += a * a;
                greatest = fmax(greatest, fabs(a));
            }
        }
        sums[t] = sum;
        most[t] = greatest;
    }
    EACH_THREAD(t) {
        long long i = first + t / 32;
        if (t % 32 != 0) continue;
        beyond[t / 32] = 1;
        if (i >= count) continue;
        double sum = 0.0, greatest = 0.0;
        for (int s = t; s < t + 32; s++) {
            sum += sums[s];
            greatest = fmax(greatest, most[s]);
        }
        double bound = __dsqrt_rn(sum) * (1.0 + 1e-9) + tiny;
        // A score is norm + gain x product.
        double times = kind == 1 ? 1.0 / row_scale(greatest) : 1.0;
        if (kind == 2) times = scale / norm_of(norms, i, unit);
        bool out = !(bound <= farthest) || !(times >= tiny && times <= 1.2676506002282294e30);
        factor[t / 32] = kind == 1 ? row_scale(greatest) : 1.0;
        beyond[t / 32] = out;
        reach[i] = out ? 0.0 : bound;
        gain[i] = out ? 0.0f : __double2float_rn(times);
        wild[i] = out ? 1 : 0;
        // 1e-9 covers the rounding on either side. No score concerns a wild row: nothing is low enough.
        double highest = infinity;
        if (labels[i] >= 0) highest = values[i] * scale * scale * (1.0 + 1e-9) - sum * (1.0 - 1e-9) + tiny;
        upper[i] = ordered(out ? -infinity : highest);
    }
    EACH_THREAD(t) {
        long long i = first + t / 32;
        double lost = 0.0;
        sums[t] = 0.0;
        if (i >= places) continue;
        bool zeros = i >= count || beyond[t / 32];
        double norm = zeros ? 1.0 : norm_of(norms, i, unit), times = factor[t / 32];
        for (long long j = t % 32; j < width && (write || kind == 1); j += 32) {
            double a = 0.0;
            bool none = zeros || j >= dims;
            if (!none && kind != 2) a = (coordinate(rows, i * dims + j, unit, norm) - origin[j]) * scale;
            if (kind == 0) {
                singles[i * width + j] = __double2float_rn(a);
            } else {
                Half half = kind == 2 ? (none ? (Half)0 : half_of(widen(rows[i * dims + j])))
                                      : half_of(__double2float_rn(a * times));
                double back = (double)widen(half) / times;
                if (kind == 1 && !none) lost += (a - back) * (a - back);
                if (write) halves[half_place(i, j, width, panel)] = half;
            }
        }
        sums[t] = lost;
    }
    EACH_THREAD(t) {
        long long i = first + t / 32;
        if (t % 32 != 0 || i >= count) continue;
        double lost = 0.0;
        for (int s = t; s < t + 32; s++) lost += sums[s];
        // 2^-50: float64's rounding of the shifted row; a row's own bits are off by the rounding of its unit row.
        double off = kind == 0 ? 0.0 : __dsqrt_rn(lost) * (1.0 + 1e-9) + 8.9e-16 * reach[i];
        slack[i] = beyond[t / 32] ? 0.0 : off;
        reach[i] += slack[i];
    }
}

// float16(-2 scale (c - origin)) in the columns' order, and how far half of that is from scale (c - origin).
extern "C" __global__ void halve_columns(
    const float* centroids, long long dims, const double* origin, double scale, const int* order, long long padded,
    long long width, long long panel, Half* columns, double* residuals) {
    ONCE_A_BLOCK
    __shared__ double sums[THREADS];
    long long first = (long long)blockIdx.x * ROWS_A_BLOCK;
    EACH_THREAD(t) {
        long long place = first + t / 32;
        sums[t] = 0.0;
        if (place >= padded) continue;
        long long cluster = order[place];
        double lost = 0.0;
        for (long long j = t % 32; j < width; j += 32) {
            bool none = cluster < 0 || j >= dims;
            double q = none ? 0.0 : ((double)centroids[cluster * dims + j] - origin[j]) * scale;
            Half half = half_of(__double2float_rn(-2.0 * q));
            double off = q + 0.5 * (double)widen(half);
            lost += off * off;
            columns[half_place(place, j, width, panel)] = half;
        }
        sums[t] = lost;
    }
    EACH_THREAD(t) {
        long long place = first + t / 32;
        if (t % 32 != 0 || place >= padded) continue;
        double lost = 0.0;
        for (int s = t; s < t + 32; s++) lost += sums[s];
        residuals[place] = __dsqrt_rn(lost);
    }
}

#define READY_KERNEL(Row, suffix)                                                                                     \
    extern "C" __global__ void ready_rows_##suffix(                                                                   \
        const Row* rows, const double* norms, long long unit, long long count, long long dims, const double* origin,  \
        double scale, double farthest, const int* labels, const double* values, long long kind, long long write,      \
        long long places, long long width, long long panel, float* singles, Half* halves, double* reach,              \
        double* slack, float* gain, long long* upper, unsigned char* wild) {                                          \
        ready_rows(                                                                                                   \
            rows, norms, unit, count, dims, origin, scale, farthest, labels, values, kind, write, places, width,      \
            panel, singles, halves, reach, slack, gain, upper, wild);                                                 \
    }

READY_KERNEL(float, float32)
READY_KERNEL(Half, float16)
