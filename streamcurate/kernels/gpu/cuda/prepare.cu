// Laying centroids out for screening: origin, scale and norms. kernels/gpu/prepare.py has the order of the launches.

// The mean of each coordinate, in two steps: of each chunk of centroids, then of the chunks. Any origin gives the same
// labels, so the order of the sum does not matter.
extern "C" __global__ void sums_of_chunks(
    const float* centroids, long long clusters, long long dims, long long chunk, long long chunks, double* partial) {
    long long place = thread_number();
    if (place >= chunks * dims) return;
    long long j = place % dims, first = place / dims * chunk;
    long long last = first + chunk < clusters ? first + chunk : clusters;
    double sum = 0.0;
    for (long long k = first; k < last; k++) sum += (double)centroids[k * dims + j];
    partial[place] = sum;
}

extern "C" __global__ void mean_of_chunks(
    const double* partial, long long chunks, long long clusters, long long dims, double* origin) {
    long long j = thread_number();
    if (j >= dims) return;
    double sum = 0.0;
    for (long long chunk = 0; chunk < chunks; chunk++) sum += partial[chunk * dims + j];
    origin[j] = sum / (double)clusters;
}

// For a warp's worth of threads to each of ROWS_A_BLOCK centroids: the largest |c - origin|, and the sum of its squares
// after scaling. ``largest`` holds the bits of doubles that are not negative: such bits order as the numbers do.
#define ROWS_A_BLOCK (THREADS / 32)

extern "C" __global__ void centroid_extents(
    const float* centroids, long long clusters, long long dims, const double* origin, double scale, long long* largest,
    double* squared) {
    ONCE_A_BLOCK
    __shared__ double sums[THREADS], most[THREADS];
    long long first = (long long)blockIdx.x * ROWS_A_BLOCK;
    EACH_THREAD(t) {
        long long k = first + t / 32;
        sums[t] = most[t] = 0.0;
        if (k >= clusters) continue;
        double sum = 0.0, greatest = 0.0;
        for (long long j = t % 32; j < dims; j += 32) {
            double value = ((double)centroids[k * dims + j] - origin[j]) * scale;
            sum += value * value;
            greatest = fmax(greatest, fabs(value));
        }
        sums[t] = sum;
        most[t] = greatest;
    }
    EACH_THREAD(t) {
        long long k = first + t / 32;
        if (t % 32 != 0 || k >= clusters) continue;
        double sum = 0.0, greatest = 0.0;
        for (int s = t; s < t + 32; s++) {
            sum += sums[s];
            greatest = fmax(greatest, most[s]);
        }
        squared[k] = sum;
        atomicMax(largest, __double_as_longlong(greatest));
    }
}

// float32(-2 scale (c - origin)) of columns first to first + some, for the float32 route.
extern "C" __global__ void fill_columns(
    const float* centroids, long long dims, const double* origin, double scale, const int* order, long long first,
    long long some, float* columns) {
    long long place = thread_number();
    if (place >= some * dims) return;
    long long cluster = order[first + place / dims], j = place % dims;
    double value = cluster < 0 ? 0.0 : ((double)centroids[cluster * dims + j] - origin[j]) * (-2.0 * scale);
    columns[place] = __double2float_rn(value);
}
