// Rows as the formula sees them, and the formula. Every file of this folder is compiled after this one, as one source.
//
// Most kernels: one thread does one item, numbered by thread_number(), and no thread waits for another. Where a block
// of THREADS works together, its kernel is written in phases: EACH_THREAD(t) { ... } is what each thread does before all
// of them meet; what a thread keeps from phase to phase is declared by OWN and read as MY(name, t). So the same text also
// compiles as plain C++, where a phase is a loop (the tests do that). Scalars are long long or double, pointers are to
// device memory. Operations whose bits matter are written as intrinsics, which no compiler contracts to fused
// multiply-adds.

#define THREADS 256

#ifndef EACH_THREAD
#define EACH_THREAD(t) for (int t = threadIdx.x, last_##t = 0; !last_##t; last_##t = 1, __syncthreads())
#define OWN(type, name) type name
#define MY(name, t) name
#define ONCE_A_BLOCK
#define MEET __syncthreads();
#endif

typedef unsigned short Half;  // the bits of a float16

static __device__ __forceinline__ long long thread_number() {
    return (long long)blockIdx.x * (long long)blockDim.x + (long long)threadIdx.x;
}

static __device__ __forceinline__ float widen(float value) { return value; }

static __device__ __forceinline__ float widen(Half bits) {
    // The fields of a half, moved to where a float32 has them, make a number 2^112 too small.
    unsigned int word = (unsigned int)(bits & 0x7FFF) << 13;
    if ((bits & 0x7C00) == 0x7C00) word |= 0x7F800000u;
    float size = __fmul_rn(__uint_as_float(word), 5192296858534827628530496329220096.0f);
    return __uint_as_float(__float_as_uint(size) | ((unsigned int)(bits & 0x8000) << 16));
}

// The nearest float16, halves to even; what is beyond the largest becomes the largest.
static __device__ __forceinline__ Half half_of(float value) {
    unsigned int word = __float_as_uint(value), size = word & 0x7FFFFFFFu, sign = (word >> 16) & 0x8000u;
    if (size >= 0x477FE000u) return (Half)(sign | 0x7BFFu);  // 65504 and more
    if (size < 0x38800000u) {  // below 2^-14: a multiple of 2^-24, which adding 1/2 rounds to
        float shifted = __fadd_rn(__uint_as_float(size), 0.5f);
        return (Half)(sign | (__float_as_uint(shifted) - 0x3F000000u));
    }
    return (Half)(sign | ((size - 0x38000000u + 0xFFFu + ((size >> 13) & 1u)) >> 13));
}

// Coordinate ``place`` of the block: the value itself (unit 0), or divided by its row's norm (unit 1).
template <typename Row>
static __device__ __forceinline__ double coordinate(const Row* rows, long long place, long long unit, double norm) {
    double value = (double)widen(rows[place]);
    return unit ? __ddiv_rn(value, norm) : value;
}

static __device__ __forceinline__ double norm_of(const double* norms, long long row, long long unit) {
    if (!unit) return 1.0;
    return norms[row] == 0.0 ? 1.0 : norms[row];  // a row of zeros stays zeros
}

// Four centroids at once: one sum's additions must wait for one another, different sums' need not.
template <typename Row>
static __device__ __forceinline__ void formula_of_four(
    const Row* row, long long unit, double norm, const float* c0, const float* c1, const float* c2, const float* c3,
    long long dims, double* sums) {
    double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
    for (long long j = 0; j < dims; j++) {
        double x = coordinate(row, j, unit, norm);
        double a0 = __dsub_rn(x, (double)c0[j]);
        double a1 = __dsub_rn(x, (double)c1[j]);
        double a2 = __dsub_rn(x, (double)c2[j]);
        double a3 = __dsub_rn(x, (double)c3[j]);
        s0 = __dadd_rn(s0, __dmul_rn(a0, a0));
        s1 = __dadd_rn(s1, __dmul_rn(a1, a1));
        s2 = __dadd_rn(s2, __dmul_rn(a2, a2));
        s3 = __dadd_rn(s3, __dmul_rn(a3, a3));
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

// Sums of squares, coordinates left to right in one accumulator, of THREADS rows at a time: of x, or of x - c where
// ``centroids`` is given (the formula). One row's additions must wait for one another; so that memory is read side by
// side, SPAN coordinates of each row are squared by neighbouring threads first, then each thread adds those of its own.
#define SPAN 16

template <typename Row>
static __device__ __forceinline__ void chained_sums(
    const Row* rows, const double* norms, long long unit, long long dims, const long long* row_of,
    const long long* cluster_of, const float* centroids, double* squares, double* sums) {
    EACH_THREAD(t) { sums[t] = 0.0; }
    for (long long first = 0; first < dims; first += SPAN) {
        EACH_THREAD(t) {
            long long j = first + t % SPAN;
            for (int p = t / SPAN; p < THREADS; p += THREADS / SPAN) {
                long long row = row_of[p];
                if (row < 0 || j >= dims) continue;
                double x = coordinate(rows, row * dims + j, unit, norm_of(norms, row, unit));
                if (centroids) x = __dsub_rn(x, (double)centroids[cluster_of[p] * dims + j]);
                squares[p * (SPAN + 1) + t % SPAN] = __dmul_rn(x, x);
            }
        }
        EACH_THREAD(t) {
            if (row_of[t] < 0) continue;
            double sum = sums[t];
            long long some = dims - first < SPAN ? dims - first : SPAN;
            for (int j = 0; j < some; j++) sum = __dadd_rn(sum, squares[t * (SPAN + 1) + j]);
            sums[t] = sum;
        }
    }
}

// Memory of one block for the above.
#define CHAIN_MEMORY                                     \
    __shared__ double squares[THREADS * (SPAN + 1)];     \
    __shared__ double sums[THREADS];                     \
    __shared__ long long row_of[THREADS], cluster_of[THREADS]

template <typename Row>
static __device__ __forceinline__ void norms_of_rows(const Row* rows, long long count, long long dims, double* norms) {
    ONCE_A_BLOCK
    CHAIN_MEMORY;
    long long first = (long long)blockIdx.x * THREADS;
    EACH_THREAD(t) { row_of[t] = first + t < count ? first + t : -1; }
    chained_sums(rows, (const double*)0, 0, dims, row_of, cluster_of, (const float*)0, squares, sums);
    EACH_THREAD(t) {
        if (row_of[t] >= 0) norms[first + t] = __dsqrt_rn(sums[t]);
    }
}

template <typename Row>
static __device__ __forceinline__ void values_of_pairs(
    const Row* rows, const double* norms, long long unit, long long dims, const long long* row_index,
    const float* centroids, const long long* cluster_index, long long count, double* values) {
    ONCE_A_BLOCK
    CHAIN_MEMORY;
    long long first = (long long)blockIdx.x * THREADS;
    EACH_THREAD(t) {
        row_of[t] = first + t < count ? row_index[first + t] : -1;
        cluster_of[t] = first + t < count ? cluster_index[first + t] : 0;
    }
    chained_sums(rows, norms, unit, dims, row_of, cluster_of, centroids, squares, sums);
    EACH_THREAD(t) {
        if (row_of[t] >= 0) values[first + t] = sums[t];
    }
}

#define ROW_KERNELS(Row, suffix)                                                                                      \
    extern "C" __global__ void row_norms_##suffix(const Row* rows, long long count, long long dims, double* norms) {  \
        norms_of_rows(rows, count, dims, norms);                                                                      \
    }                                                                                                                 \
    extern "C" __global__ void pair_values_##suffix(                                                                  \
        const Row* rows, const double* norms, long long unit, long long dims, const long long* row_index,             \
        const float* centroids, const long long* cluster_index, long long count, double* values) {                    \
        values_of_pairs(rows, norms, unit, dims, row_index, centroids, cluster_index, count, values);                 \
    }

ROW_KERNELS(float, float32)
ROW_KERNELS(Half, float16)

// Integers that order as the floats do (NaN aside), for atomic minima and maxima.
static __device__ __forceinline__ long long ordered(double value) {
    long long bits = __double_as_longlong(value);
    return bits < 0 ? bits ^ 0x7FFFFFFFFFFFFFFFLL : bits;
}

static __device__ __forceinline__ double from_ordered(long long key) {
    return __longlong_as_double(key < 0 ? key ^ 0x7FFFFFFFFFFFFFFFLL : key);
}
