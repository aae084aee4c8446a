// Laying centroids out for screening; kernels/cpu/prepare.py has the reasons.

// The mean of each coordinate: any origin gives the same labels, so the order of the sum does not matter.
extern "C" __global__ void mean_of_centroids(const float* centroids, long long clusters, long long dims, double* origin) {
    long long j = thread_number();
    if (j >= dims) return;
    double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
    long long k = 0;
    for (; k + 4 <= clusters; k += 4) {
        s0 += (double)centroids[k * dims + j];
        s1 += (double)centroids[(k + 1) * dims + j];
        s2 += (double)centroids[(k + 2) * dims + j];
        s3 += (double)centroids[(k + 3) * dims + j];
    }
    for (; k < clusters; k++) s0 += (double)centroids[k * dims + j];
    origin[j] = ((s0 + s1) + (s2 + s3)) / (double)clusters;
}

// ``largest`` holds the bits of a double that is not negative: such bits order as the numbers do.
extern "C" __global__ void largest_difference(
    const float* centroids, long long clusters, long long dims, const double* origin, long long* largest) {
    long long k = thread_number();
    if (k >= clusters) return;
    double most = 0.0;
    for (long long j = 0; j < dims; j++) most = fmax(most, fabs((double)centroids[k * dims + j] - origin[j]));
    atomicMax(largest, __double_as_longlong(most));
}

extern "C" __global__ void shifted_squared_norms(
    const float* centroids, long long clusters, long long dims, const double* origin, double scale, double* squared) {
    long long k = thread_number();
    if (k >= clusters) return;
    double sum = 0.0;
    for (long long j = 0; j < dims; j++) {
        double value = ((double)centroids[k * dims + j] - origin[j]) * scale;
        sum += value * value;
    }
    squared[k] = sum;
}

extern "C" __global__ void fill_columns(
    const float* centroids, long long dims, const double* origin, double scale, const int* order, long long padded,
    float* columns) {
    long long place = thread_number();
    if (place >= padded * dims) return;
    long long cluster = order[place / dims], j = place % dims;
    double value = cluster < 0 ? 0.0 : ((double)centroids[cluster * dims + j] - origin[j]) * (-2.0 * scale);
    columns[place] = __double2float_rn(value);
}
