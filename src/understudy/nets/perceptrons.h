// Small multilayer perceptrons, a block of rows at a time: what `fused.cpp` and `steps.cpp` are made of.
//
// A block of rows goes through all layers while its numbers stay in the nearest caches. Rows are samples, features lie
// side by side and are the lanes of a vector, widths filled up to whole vectors, so all that is multiplied is one kind of
// tile: ROWS x (COLUMNS * LANES) sums in registers. What fills up (lanes, and rows up to a whole tile) is computed with
// and never read.
//
// Bits: a row's outputs do not hang on the rows beside it. Gradients are summed over parts of the rows whose sizes come
// from the number of rows alone, and the parts in their order, so the number of threads changes nothing.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr long LANES = 16, COLUMNS = 4;  // of 32 registers 24 hold sums
#elif defined(__AVX__)
constexpr long LANES = 8, COLUMNS = 2;  // of 16 registers 12 hold sums
#elif defined(__aarch64__)
constexpr long LANES = 4, COLUMNS = 4;
#else
constexpr long LANES = 4, COLUMNS = 2;
#endif
constexpr long ROWS = 6;           // of a tile
constexpr long BLOCK = 16 * ROWS;  // rows that go through all layers together
constexpr long PART = 5 * BLOCK;   // rows, at least, whose gradients are summed together
constexpr long PARTS = 16;         // at most: each has sums of its own

typedef float Vec __attribute__((vector_size(LANES * sizeof(float)), may_alias));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(float)), may_alias));

enum Activation { TANH, RELU, SILU };
enum Tile { FROM_BIAS, ADDED, SCALED };  // bias + products | what is there + products | what is there * products

long up(long n, long unit) { return (n + unit - 1) / unit * unit; }

Vec all(float x) { return x - Vec{}; }  // x in every lane
Vec& at(float* p) { return *reinterpret_cast<Vec*>(p); }
const Vec& at(const float* p) { return *reinterpret_cast<const Vec*>(p); }

struct Buffer {  // floats on a cache line's border, at first zero, that grow and are kept for the next call
    float* data = nullptr;
    size_t size = 0;
    ~Buffer() { std::free(data); }
    float* of(size_t floats) {
        if (floats > size) {
            std::free(data);
            size = up(floats, 16);
            data = static_cast<float*>(std::aligned_alloc(64, size * sizeof(float)));
            if (!data) std::abort();
            std::memset(data, 0, size * sizeof(float));
        }
        return data;
    }
};

// ---- activations, in place of what they are of ----

Vec inverse(Vec x) {  // 1 / x, to a bit or two
#if defined(__AVX512F__)
    const Vec y = (Vec)_mm512_rcp14_ps((__m512)x);  // a division takes as long as a tile's 32 products
    return y * (2.0f - x * y);
#else
    return 1.0f / x;
#endif
}

struct Power {  // e^x for |x| <= 88, as (1 + more) * scale
    Vec more, scale;
};

Power power(Vec x) {
    Vec shifted = x * 1.44269504f + 12582912.0f;  // the nearest integer to x / log 2 stands in its last bits
    Vec r = x - (shifted - 12582912.0f) * 0.69314718f;
    Vec rest = (((r * 0.00139466f + 0.00836664f) * r + 0.04166628f) * r + 0.16666543f) * r + 0.5f;  // minimax
    return {r * r * rest + r, (Vec)(((Ints)shifted << 23) + 0x3f800000)};  // 2 to that integer
}

Vec expm1(Vec x) {  // for |x| <= 88, to 1e-7 of the result
    const Power e = power(x);
    return e.more * e.scale + (e.scale - 1.0f);
}

Vec within(Vec x, float most) {  // nan stays nan
#if defined(__AVX512F__)
    return (Vec)_mm512_max_ps((__m512)all(-most), _mm512_min_ps((__m512)all(most), (__m512)x));
#endif
    x = x > most ? all(most) : x;
    return x < -most ? all(-most) : x;
}

template <int ACTIVATION>
void bend(Vec x, Vec& y, Vec& slope, Vec& curve) {  // the activation and its first two derivatives
    if (ACTIVATION == TANH) {
        Vec e = expm1(2.0f * within(x, 10.0f));
        y = e * inverse(e + 2.0f);
        slope = 1.0f - y * y;
        curve = -2.0f * y * slope;
    } else if (ACTIVATION == RELU) {
        y = x < 0.0f ? all(0.0f) : x;
        slope = x <= 0.0f ? all(0.0f) : all(1.0f);
        curve = all(0.0f);
    } else {
        Vec sigmoid = inverse(expm1(-within(x, 88.0f)) + 2.0f);
        y = x * sigmoid;
        slope = sigmoid + y * (1.0f - sigmoid);
        curve = sigmoid * (1.0f - sigmoid) * (2.0f + x * (1.0f - 2.0f * sigmoid));
    }
}

template <int ACTIVATION>
void activate(float* z, float* slopes, long count) {  // slopes: null where nobody asks
    for (long i = 0; i < count; i += LANES) {
        Vec slope, curve;
        bend<ACTIVATION>(at(z + i), at(z + i), slope, curve);
        if (slopes) at(slopes + i) = slope;
    }
}

// the slopes of tanh or relu where it is y
void find_slopes(int activation, const float* y, float* slopes, long count) {
    for (long i = 0; i < count; i += LANES) {
        Vec x = at(y + i);
        at(slopes + i) = activation == TANH ? 1.0f - x * x : x <= 0.0f ? all(0.0f) : all(1.0f);
    }
}

void activate(int activation, float* z, float* slopes, long count) {
    if (activation == TANH) activate<TANH>(z, slopes, count);
    if (activation == RELU) activate<RELU>(z, slopes, count);
    if (activation == SILU) activate<SILU>(z, slopes, count);
}

template <int ACTIVATION>
void activate_both(float* z, float* tangent, float* slopes, float* turns, long count) {
    for (long i = 0; i < count; i += LANES) {
        Vec slope, curve, u = at(tangent + i);
        bend<ACTIVATION>(at(z + i), at(z + i), slope, curve);
        at(slopes + i) = slope;
        at(turns + i) = curve * u;
        at(tangent + i) = slope * u;
    }
}

// the same of numbers z and of a tangent to them; `turns` is the tangent to the slopes
void activate_both(int activation, float* z, float* tangent, float* slopes, float* turns, long count) {
    if (activation == TANH) activate_both<TANH>(z, tangent, slopes, turns, count);
    if (activation == RELU) activate_both<RELU>(z, tangent, slopes, turns, count);
    if (activation == SILU) activate_both<SILU>(z, tangent, slopes, turns, count);
}

// ---- products ----

// c[r][j] = sum over k < depth of a[r * a_row + k * a_step] * b[k][j], for ROWS rows and some vectors j
template <int KIND, int COUNT>
void tile(const float* a, long a_row, long a_step, const float* b, long b_row, float* c, long c_row, long depth,
          const float* bias) {
    Vec sums[ROWS][COUNT];
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < COUNT; j++)
            sums[r][j] = KIND == FROM_BIAS ? at(bias + j * LANES) : KIND == ADDED ? at(c + r * c_row + j * LANES) : Vec{};
    for (long k = 0; k < depth; k++) {
        Vec right[COUNT];
        for (int j = 0; j < COUNT; j++) right[j] = at(b + k * b_row + j * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < COUNT; j++) sums[r][j] += a[r * a_row + k * a_step] * right[j];
    }
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < COUNT; j++) {
            Vec& out = at(c + r * c_row + j * LANES);
            out = KIND == SCALED ? out * sums[r][j] : sums[r][j];
        }
}

template <int KIND>
void product(const float* a, long a_row, long a_step, const float* b, float* c, long rows, long depth, long columns,
             const float* bias) {  // b and c have rows of `columns` floats, whole vectors
    for (long j = 0; j < columns; j += COLUMNS * LANES) {
        const long count = std::min(COLUMNS, (columns - j) / LANES);
        for (long r = 0; r < rows; r += ROWS) {
            const float *left = a + r * a_row, *start = bias ? bias + j : nullptr;
            float* out = c + r * columns + j;
            if (count == 1) tile<KIND, 1>(left, a_row, a_step, b + j, columns, out, columns, depth, start);
            if (count == 2) tile<KIND, 2>(left, a_row, a_step, b + j, columns, out, columns, depth, start);
            if (COLUMNS > 2 && count == 3)
                tile<KIND, COLUMNS - 1>(left, a_row, a_step, b + j, columns, out, columns, depth, start);
            if (COLUMNS > 2 && count == 4)
                tile<KIND, COLUMNS>(left, a_row, a_step, b + j, columns, out, columns, depth, start);
        }
    }
}

// to[column][row] = from[row][column] * scale, a square at a time: rows of 1,024 bytes would drive each other from the
// nearest cache
void transpose(const float* from, long from_row, long rows, long columns, float scale, float* to, long to_row) {
    for (long r = 0; r < rows; r += LANES)
        for (long c = 0; c < columns; c += LANES)
            for (long k = c; k < std::min(c + LANES, columns); k++)
                for (long i = r; i < std::min(r + LANES, rows); i++) to[k * to_row + i] = from[i * from_row + k] * scale;
}

// ---- nets ----

struct Layer {
    long in, out, in_full, out_full;   // widths, and widths in whole vectors
    float *forward, *backward, *bias;  // weights as [in][out_full] and [out][in_full]
    const float* zeros;                // as many as the wider side has
    long sums, bias_sums;              // where the gradients stand among a part's sums

    // they stand as [in][out_full], or [out][in_full] where that is less
    bool turned() const { return up(out, ROWS) * in_full < up(in, ROWS) * out_full; }
    long sums_size() const { return turned() ? up(out, ROWS) * in_full : up(in, ROWS) * out_full; }

    void apply(const float* x, float* z, long count) const {
        product<FROM_BIAS>(x, in_full, 1, forward, z, count, in, out_full, bias);
    }
    void apply_flat(const float* x, float* z, long count) const {  // without the bias
        product<FROM_BIAS>(x, in_full, 1, forward, z, count, in, out_full, zeros);
    }
    template <int KIND>
    void pull(const float* d_z, float* d_x, long count) const {
        product<KIND>(d_z, out_full, 1, backward, d_x, count, out, in_full, zeros);
    }
    void sum_weights(const float* x, const float* d_z, float* to, long count) const {
        if (turned())
            product<ADDED>(d_z, 1, out_full, x, to + sums, out, count, in_full, nullptr);
        else
            product<ADDED>(x, 1, in_full, d_z, to + sums, in, count, out_full, nullptr);
    }
    void sum_biases(const float* d_z, float* to, long count) const {
        for (long o = 0; o < out_full; o += LANES) {
            Vec total = at(to + bias_sums + o);
            for (long r = 0; r < count; r++) total += at(d_z + r * out_full + o);
            at(to + bias_sums + o) = total;
        }
    }
};

struct Net {  // one set of weights
    std::vector<Layer> layers;
    long sums_size = 0;
};

struct Call {
    const int64_t *widths, *groups;
    int64_t envs, agents, sets, depth, activation, closed;
    std::vector<std::vector<int64_t>> members;  // [set]: the agents that use it

    Call(const int64_t* widths, const int64_t* groups, int64_t envs, int64_t agents, int64_t sets, int64_t depth,
         int64_t activation, int64_t closed)
        : widths(widths), groups(groups), envs(envs), agents(agents), sets(sets), depth(depth), activation(activation),
          closed(closed), members(sets) {
        for (long a = 0; a < agents; a++) members[groups[a]].push_back(a);
    }
    long inputs() const { return widths[0]; }
    long outputs() const { return widths[depth]; }
    bool bent(long layer) const { return closed || layer + 1 < depth; }
    long rows(long set) const { return envs * members[set].size(); }
    long place(long set, long k) const {  // of row k of a set among all rows
        const long count = members[set].size();
        return count == agents ? k : k / count * agents + members[set][k % count];
    }
    long kept() const {  // floats of a block's activations, which suffice for their slopes
        long floats = 0;
        for (long l = 0; l < depth; l++) floats += bent(l) ? up(widths[l + 1], LANES) * (BLOCK + 1) : 0;
        return activation == SILU ? 0 : floats;
    }
};

struct Task {  // a part of the rows of one set
    long set, begin, end, block;  // block: how many blocks come before it

    long blocks() const { return (end - begin + BLOCK - 1) / BLOCK; }
};

std::vector<Task> share_out(const Call& call) {
    std::vector<Task> tasks;
    for (long s = 0, block = 0; s < call.sets; s++) {
        const long rows = call.rows(s), part = std::max(PART, up((rows + PARTS - 1) / PARTS, BLOCK));
        for (long r = 0; r < rows; r += part, block += tasks.back().blocks())
            tasks.push_back({s, r, std::min(r + part, rows), block});
    }
    return tasks;
}

int workers(int64_t threads, const std::vector<Task>& tasks) { return std::min<int64_t>(threads, tasks.size()); }

std::vector<Net> pack(const Call& call, const float* const* weights, const float* const* biases, bool backward) {
    long floats = 0, widest = 0;
    for (long l = 0; l < call.depth; l++) {
        const long in = call.widths[l], out = call.widths[l + 1];
        floats += (in + 1) * up(out, LANES) + (backward ? out * up(in, LANES) : 0);
        widest = std::max(widest, up(std::max(in, out), LANES));
    }
    static thread_local Buffer packed;
    float* free = packed.of(floats * call.sets + widest);
    const float* zeros = std::fill_n(free, widest, 0.0f) - widest;
    free += widest;
    std::vector<Net> nets(call.sets);
    for (long s = 0; s < call.sets; s++) {
        Net& net = nets[s];
        for (long l = 0; l < call.depth; l++) {
            const long in = call.widths[l], out = call.widths[l + 1];
            Layer layer{in, out, up(in, LANES), up(out, LANES), nullptr, nullptr, nullptr, zeros, net.sums_size, 0};
            layer.bias_sums = layer.sums + layer.sums_size();
            net.sums_size = layer.bias_sums + layer.out_full;
            const float *weight = weights[l] + s * in * out, *bias = biases[l] + s * out;
            layer.forward = free;
            layer.bias = layer.forward + in * layer.out_full;
            free = layer.bias + layer.out_full;
            transpose(weight, in, out, in, 1.0f, layer.forward, layer.out_full);
            std::copy(bias, bias + out, layer.bias);
            if (backward) {
                layer.backward = free;
                free += out * layer.in_full;
                for (long o = 0; o < out; o++)
                    std::copy(weight + o * in, weight + (o + 1) * in, layer.backward + o * layer.in_full);
            }
            net.layers.push_back(layer);
        }
    }
    return nets;
}

enum What { OUT, GRADIENT, SLOPE, TURN };

struct Work {  // a block's numbers before the first layer and after each: [what][layer]
    std::vector<std::vector<float*>> arrays;

    Work(const Call& call, int count, long rows) {
        rows++;  // a tile may read beyond the last
        long floats = 0;
        for (long l = 0; l <= call.depth; l++) floats += up(call.widths[l], LANES) * rows;
        static thread_local Buffer buffer;
        float* free = buffer.of(floats * count);
        arrays.resize(count);
        for (auto& array : arrays)
            for (long l = 0; l <= call.depth; l++) {
                array.push_back(free);
                free += up(call.widths[l], LANES) * rows;
            }
    }
    const std::vector<float*>& operator[](int what) const { return arrays[what]; }

    void keep(const Call& call, float* kept, long block) {  // the activations stand there
        kept += block * call.kept();
        for (long l = 0; l < call.depth; l++)
            if (call.bent(l)) {
                arrays[OUT][l + 1] = kept;
                kept += up(call.widths[l + 1], LANES) * (BLOCK + 1);
            }
    }
};

// What a block's rows are in the call's own [env, agent, feature]
struct Rows {
    const Call& call;
    long set, begin, count;

    void read(const float* from, long width, float* to) const {
        for (long r = 0; r < count; r++)
            std::memcpy(to + r * up(width, LANES), from + call.place(set, begin + r) * width, width * sizeof(float));
    }
    void read_times(const float* from, long width, float* to) const {
        for (long r = 0; r < count; r++) {
            const float* row = from + call.place(set, begin + r) * width;
            for (long i = 0; i < width; i++) to[r * up(width, LANES) + i] *= row[i];
        }
    }
    void write(const float* from, long width, float* to) const {
        for (long r = 0; r < count; r++)
            std::memcpy(to + call.place(set, begin + r) * width, from + r * up(width, LANES), width * sizeof(float));
    }
};

// slopes: whether those of the activations are left in GRADIENT, for `pull_back`
void forward(const Call& call, const Net& net, const Work& work, long count, bool slopes) {
    for (long l = 0; l < call.depth; l++) {
        const Layer& layer = net.layers[l];
        float* const to = slopes ? work[GRADIENT][l + 1] : nullptr;
        layer.apply(work[OUT][l], work[OUT][l + 1], count);
        if (call.bent(l)) activate(call.activation, work[OUT][l + 1], to, up(count, ROWS) * layer.out_full);
    }
}

// From what stands in GRADIENT, of the last layer's outputs and the slopes below, the gradients of all parameters,
// added to `sums`, and those of the inputs, which multiply what stands in theirs
void pull_back(const Call& call, const Net& net, const Work& work, long count, float* sums, bool inputs_too) {
    for (long l = call.depth - 1; l >= 0; l--) {  // in GRADIENT the slope stands until the gradient takes its place
        const Layer& layer = net.layers[l];
        if (sums) {
            layer.sum_weights(work[OUT][l], work[GRADIENT][l + 1], sums, count);
            layer.sum_biases(work[GRADIENT][l + 1], sums, count);
        }
        if (l > 0 || inputs_too) layer.pull<SCALED>(work[GRADIENT][l + 1], work[GRADIENT][l], count);
    }
}

// The parts' sums, in their order, times `scale`, as the call wants them
void write_sums(const Call& call, const std::vector<Net>& nets, const std::vector<Task>& tasks, float* sums, float scale,
                float* const* d_weights, float* const* d_biases) {
    const size_t size = nets[0].sums_size;
    for (long s = 0; s < call.sets; s++) {
        float* total = nullptr;
        for (size_t t = 0; t < tasks.size(); t++) {
            if (tasks[t].set != s) continue;
            if (!total)
                total = sums + t * size;
            else
                for (size_t i = 0; i < size; i += LANES) at(total + i) += at(sums + t * size + i);
        }
        for (long l = 0; l < call.depth; l++) {
            const Layer& layer = nets[s].layers[l];
            float *const weight = d_weights[l] + s * layer.out * layer.in, *const bias = d_biases[l] + s * layer.out;
            if (!total) {
                std::fill_n(weight, layer.out * layer.in, 0.0f);
                std::fill_n(bias, layer.out, 0.0f);
                continue;
            }
            const float* const from = total + layer.sums;
            if (!layer.turned()) transpose(from, layer.out_full, layer.in, layer.out, scale, weight, layer.in);
            for (long o = 0; o < layer.out; o++) {
                for (long i = 0; layer.turned() && i < layer.in; i++)
                    weight[o * layer.in + i] = scale * from[o * layer.in_full + i];
                bias[o] = scale * total[layer.bias_sums + o];
            }
        }
    }
}

}  // namespace
