// Rows as the formula sees them, and the formula. Every file of this folder is compiled after this one, as one source.
//
// One thread does one item, numbered by thread_number(); no thread waits for another, so the same text also compiles as
// plain C++ (the tests do that). Scalars are long long or double, pointers are to device memory. Operations whose bits
// matter are written as intrinsics, which no compiler contracts to fused multiply-adds.

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

// Root of the sum of squares, coordinates left to right in one accumulator.
template <typename Row>
static __device__ __forceinline__ void row_norm(const Row* rows, long long count, long long dims, double* norms) {
    long long i = thread_number();
    if (i >= count) return;
    double sum = 0.0;
    for (long long j = 0; j < dims; j++) {
        double value = (double)widen(rows[i * dims + j]);
        sum = __dadd_rn(sum, __dmul_rn(value, value));
    }
    norms[i] = __dsqrt_rn(sum);
}

extern "C" __global__ void row_norms_float32(const float* rows, long long count, long long dims, double* norms) {
    row_norm(rows, count, dims, norms);
}

extern "C" __global__ void row_norms_float16(const Half* rows, long long count, long long dims, double* norms) {
    row_norm(rows, count, dims, norms);
}

// The formula: the sum over coordinates, left to right, in one accumulator, of (x - c)^2.
template <typename Row>
static __device__ __forceinline__ double formula(
    const Row* row, long long unit, double norm, const float* centroid, long long dims) {
    double sum = 0.0;
    for (long long j = 0; j < dims; j++) {
        double difference = __dsub_rn(coordinate(row, j, unit, norm), (double)centroid[j]);
        sum = __dadd_rn(sum, __dmul_rn(difference, difference));
    }
    return sum;
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

template <typename Row>
static __device__ __forceinline__ void value_of_pair(
    const Row* rows, const double* norms, long long unit, long long dims, const long long* row_index,
    const float* centroids, const long long* cluster_index, long long count, double* values) {
    long long p = thread_number();
    if (p >= count) return;
    long long i = row_index[p];
    values[p] = formula(rows + i * dims, unit, norm_of(norms, i, unit), centroids + cluster_index[p] * dims, dims);
}

extern "C" __global__ void pair_values_float32(
    const float* rows, const double* norms, long long unit, long long dims, const long long* row_index,
    const float* centroids, const long long* cluster_index, long long count, double* values) {
    value_of_pair(rows, norms, unit, dims, row_index, centroids, cluster_index, count, values);
}

extern "C" __global__ void pair_values_float16(
    const Half* rows, const double* norms, long long unit, long long dims, const long long* row_index,
    const float* centroids, const long long* cluster_index, long long count, double* values) {
    value_of_pair(rows, norms, unit, dims, row_index, centroids, cluster_index, count, values);
}

// Integers that order as the floats do (NaN aside), for atomic minima and maxima.
static __device__ __forceinline__ long long ordered(double value) {
    long long bits = __double_as_longlong(value);
    return bits < 0 ? bits ^ 0x7FFFFFFFFFFFFFFFLL : bits;
}

static __device__ __forceinline__ double from_ordered(long long key) {
    return __longlong_as_double(key < 0 ? key ^ 0x7FFFFFFFFFFFFFFFLL : key);
}
