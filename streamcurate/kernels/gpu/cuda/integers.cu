// Rows as 8-bit integers, and integer distances between them; kernels/cpu/quantise.py has the reasons.

template <typename Row>
static __device__ __forceinline__ void round_coordinate(
    const Row* rows, const double* norms, long long unit, long long count, long long dims, const double* offset,
    double step, signed char* integers) {
    long long place = thread_number();
    if (place >= count * dims) return;
    double x = coordinate(rows, place, unit, norm_of(norms, place / dims, unit));
    double value = rint(__ddiv_rn(__dsub_rn(x, offset[place % dims]), step));
    value = value > 127.0 ? 127.0 : (value < -127.0 ? -127.0 : value);
    integers[place] = (signed char)(int)value;
}

extern "C" __global__ void round_rows_float32(
    const float* rows, const double* norms, long long unit, long long count, long long dims, const double* offset,
    double step, signed char* integers) {
    round_coordinate(rows, norms, unit, count, dims, offset, step, integers);
}

extern "C" __global__ void round_rows_float16(
    const Half* rows, const double* norms, long long unit, long long count, long long dims, const double* offset,
    double step, signed char* integers) {
    round_coordinate(rows, norms, unit, count, dims, offset, step, integers);
}

// Columns first to first + some of int8 rows as float32.
extern "C" __global__ void integers_to_float32(
    const signed char* integers, long long count, long long dims, long long first, long long some, float* values) {
    long long place = thread_number();
    if (place >= count * some) return;
    values[place] = (float)integers[place / some * dims + first + place % some];
}

extern "C" __global__ void integer_norms(
    const signed char* integers, long long count, long long dims, long long* squared) {
    long long i = thread_number();
    if (i >= count) return;
    long long sum = 0;
    for (long long j = 0; j < dims; j++) {
        int value = integers[i * dims + j];
        sum += value * value;
    }
    squared[i] = sum;
}

// distances[i, b] = left[i] + right[b] - 2 products, the products of one piece of the columns at a time.
extern "C" __global__ void place_distances(
    const float* products, const long long* left, const long long* right, long long count, long long others,
    long long first, long long* distances) {
    long long place = thread_number();
    if (place >= count * others) return;
    long long start = first ? left[place / others] + right[place % others] : distances[place];
    distances[place] = start - 2 * (long long)products[place];
}
