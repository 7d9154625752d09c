// Forward and backward of small multilayer perceptrons. `fused.py` builds, loads and calls it; there is the why.
//
// A block of rows goes through all layers while its numbers stay in the nearest caches; backward goes forward again
// rather than read what was kept. Rows are samples, features lie side by side and are the lanes of a vector, widths
// filled up to whole vectors, so all that is multiplied is one kind of tile: ROWS x (COLUMNS * LANES) sums in registers.
// What fills up (lanes, and rows up to a whole tile) is computed with and never read.
//
// Bits: a row's outputs do not hang on the rows beside it. Gradients are summed over parts of the rows whose sizes come
// from the number of rows alone, and the parts in their order, so the number of threads changes nothing.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

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

// ---- activations: the output in place of z, and if asked for the slope there ----

Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
    Vec y = __builtin_ia32_rcp14ps512_mask(x, Vec{}, (unsigned short)-1);
    return y * (2.0f - x * y);  // one step of Newton: half the time of a division, and the last bit may differ
#else
    return 1.0f / x;
#endif
}

Vec expm1(Vec x) {  // for |x| <= 88, to 1e-7 of the result
    Vec shifted = x * 1.44269504f + 12582912.0f;  // the nearest integer to x / log 2 stands in its last bits
    Vec r = x - (shifted - 12582912.0f) * 0.69314718f;
    Vec rest = (((r * 0.00139466f + 0.00836664f) * r + 0.04166628f) * r + 0.16666543f) * r + 0.5f;  // minimax
    Vec scale = (Vec)(((Ints)shifted << 23) + 0x3f800000);  // 2 to that integer
    return (r * r * rest + r) * scale + (scale - 1.0f);
}

Vec within(Vec x, float most) {  // nan stays nan
    x = x > most ? all(most) : x;
    return x < -most ? all(-most) : x;
}

template <int ACTIVATION>
void activate(float* z, float* slope, long count) {
    for (long i = 0; i < count; i += LANES) {
        Vec x = at(z + i), y, d;
        if (ACTIVATION == TANH) {
            Vec e = expm1(2.0f * within(x, 10.0f));
            y = e * reciprocal(e + 2.0f);
            d = 1.0f - y * y;
        } else if (ACTIVATION == RELU) {
            y = x < 0.0f ? all(0.0f) : x;
            d = x <= 0.0f ? all(0.0f) : all(1.0f);
        } else {
            Vec sigmoid = reciprocal(expm1(-within(x, 88.0f)) + 2.0f);
            y = x * sigmoid;
            d = sigmoid + y * (1.0f - sigmoid);
        }
        at(z + i) = y;
        if (slope) at(slope + i) = d;
    }
}

void activate(int activation, float* z, float* slope, long count) {
    if (activation == TANH) activate<TANH>(z, slope, count);
    if (activation == RELU) activate<RELU>(z, slope, count);
    if (activation == SILU) activate<SILU>(z, slope, count);
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

// ---- nets ----

struct Layer {
    long in, out, in_full, out_full;  // widths, and widths in whole vectors
    float *forward, *backward, *bias;  // weights as [in][out_full] and [out][in_full]
    long sums, bias_sums;  // where the gradients stand among a part's sums
    // sums are [in][out_full], or [out][in_full] where that is less
    bool turned() const { return up(out, ROWS) * in_full < up(in, ROWS) * out_full; }
    long sums_size() const { return turned() ? up(out, ROWS) * in_full : up(in, ROWS) * out_full; }
};

struct Net {  // one set of weights
    std::vector<Layer> layers;
    std::vector<int64_t> members;  // the agents that use it
    long sums_size = 0;
};

struct Task {  // a part of the rows of one set: row k is agent members[k % members] of env k / members
    long set, begin, end;
};

struct Call {
    int64_t envs, agents, sets, depth, activation, closed;
    const int64_t *widths, *groups;

    long inputs() const { return widths[0]; }
    long outputs() const { return widths[depth]; }
    bool bent(long layer) const { return closed || layer + 1 < depth; }
    long place(const Net& net, long k) const {
        const long count = net.members.size();
        return count == agents ? k : k / count * agents + net.members[k % count];
    }
};

std::vector<Net> pack(const Call& call, const float* const* weights, const float* const* biases, bool backward) {
    size_t floats = 0;
    for (long l = 0; l < call.depth; l++) {
        const long in = call.widths[l], out = call.widths[l + 1];
        floats += (in + 1) * up(out, LANES) + (backward ? out * up(in, LANES) : 0);
    }
    static thread_local Buffer packed;
    float* free = packed.of(floats * call.sets);
    std::vector<Net> nets(call.sets);
    for (long s = 0; s < call.sets; s++) {
        Net& net = nets[s];
        for (long a = 0; a < call.agents; a++)
            if (call.groups[a] == s) net.members.push_back(a);
        for (long l = 0; l < call.depth; l++) {
            const long in = call.widths[l], out = call.widths[l + 1];
            Layer layer{in, out, up(in, LANES), up(out, LANES), nullptr, nullptr, nullptr, net.sums_size, 0};
            layer.bias_sums = layer.sums + layer.sums_size();
            net.sums_size = layer.bias_sums + layer.out_full;
            const float *weight = weights[l] + s * in * out, *bias = biases[l] + s * out;
            layer.forward = free;
            layer.bias = layer.forward + in * layer.out_full;
            free = layer.bias + layer.out_full;
            for (long i = 0; i < in; i++)
                for (long o = 0; o < out; o++) layer.forward[i * layer.out_full + o] = weight[o * in + i];
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

std::vector<Task> share_out(const Call& call, const std::vector<Net>& nets) {
    std::vector<Task> tasks;
    for (long s = 0; s < call.sets; s++) {
        const long rows = call.envs * nets[s].members.size();
        const long part = std::max(PART, up((rows + PARTS - 1) / PARTS, BLOCK));
        for (long r = 0; r < rows; r += part) tasks.push_back({s, r, std::min(r + part, rows)});
    }
    return tasks;
}

struct Work {  // one block's numbers: what goes into each layer and comes out of the last, and their gradients
    std::vector<float*> out, gradient;  // [layer + 1]

    Work(const Call& call, bool backward) {
        size_t floats = 0;
        for (long l = 0; l <= call.depth; l++) floats += up(call.widths[l], LANES) * (BLOCK + 1) * (backward ? 2 : 1);
        static thread_local Buffer buffer;
        float* free = buffer.of(floats);
        for (long l = 0; l <= call.depth; l++) {
            const long size = up(call.widths[l], LANES) * (BLOCK + 1);  // one row more: a tile may read beyond
            out.push_back(free);
            free += size;
            gradient.push_back(backward ? free : nullptr);
            if (backward) free += size;
        }
    }
};

// What a block's rows are in the call's own [env, agent, feature]
struct Rows {
    const Call& call;
    const Net& net;
    long begin, count;

    void read(const float* from, long width, float* to) const {
        for (long r = 0; r < count; r++)
            std::memcpy(to + r * up(width, LANES), from + call.place(net, begin + r) * width, width * sizeof(float));
    }
    void read_times(const float* from, long width, float* to) const {
        for (long r = 0; r < count; r++) {
            const float* row = from + call.place(net, begin + r) * width;
            for (long i = 0; i < width; i++) to[r * up(width, LANES) + i] *= row[i];
        }
    }
    void write(const float* from, long width, float* to) const {
        for (long r = 0; r < count; r++)
            std::memcpy(to + call.place(net, begin + r) * width, from + r * up(width, LANES), width * sizeof(float));
    }
};

void go_forward(const Call& call, const Net& net, const Work& work, long count, long layers) {
    for (long l = 0; l < layers; l++) {
        const Layer& layer = net.layers[l];
        product<FROM_BIAS>(work.out[l], layer.in_full, 1, layer.forward, work.out[l + 1], count, layer.in,
                           layer.out_full, layer.bias);
        if (call.bent(l))
            activate(call.activation, work.out[l + 1], work.gradient[l + 1], up(count, ROWS) * layer.out_full);
    }
}

// `work.gradient` holds the loss's by the net's outputs, and in the layers before it the slopes of the activations
void go_back(const Call& call, const Net& net, const Work& work, long count, float* sums, bool inputs_too) {
    for (long l = call.depth - 1; l >= 0; l--) {
        const Layer& layer = net.layers[l];
        const float *in = work.out[l], *gradient = work.gradient[l + 1];
        if (sums) {
            float *weight = sums + layer.sums, *bias = sums + layer.bias_sums;
            if (layer.turned())
                product<ADDED>(gradient, 1, layer.out_full, in, weight, layer.out, count, layer.in_full, nullptr);
            else
                product<ADDED>(in, 1, layer.in_full, gradient, weight, layer.in, count, layer.out_full, nullptr);
            for (long r = 0; r < count; r++)
                for (long o = 0; o < layer.out_full; o += LANES) at(bias + o) += at(gradient + r * layer.out_full + o);
        }
        if (l > 0 || inputs_too)
            product<SCALED>(gradient, layer.out_full, 1, layer.backward, work.gradient[l], count, layer.out,
                            layer.in_full, nullptr);
    }
}

}  // namespace

// Tensors lie [env, agent, feature], weights [set, out, in], biases [set, out]. widths: of the inputs, then of each
// layer's outputs. groups: the set of each agent. closed: the last layer is followed by the activation too.

extern "C" void understudy_forward(const float* inputs, float* outputs, const float* const* weights,
                                   const float* const* biases, const int64_t* widths, const int64_t* groups,
                                   int64_t envs, int64_t agents, int64_t sets, int64_t depth, int64_t activation,
                                   int64_t closed, int64_t threads) {
    const Call call{envs, agents, sets, depth, activation, closed, widths, groups};
    const std::vector<Net> nets = pack(call, weights, biases, false);
    const std::vector<Task> tasks = share_out(call, nets);
#pragma omp parallel for num_threads(std::min<int64_t>(threads, tasks.size())) if (threads > 1 && tasks.size() > 1) schedule(static)
    for (size_t t = 0; t < tasks.size(); t++) {
        const Net& net = nets[tasks[t].set];
        const Work work(call, false);
        for (long begin = tasks[t].begin; begin < tasks[t].end; begin += BLOCK) {
            const Rows rows{call, net, begin, std::min(BLOCK, tasks[t].end - begin)};
            rows.read(inputs, call.inputs(), work.out[0]);
            go_forward(call, net, work, rows.count, depth);
            rows.write(work.out[depth], call.outputs(), outputs);
        }
    }
}

// d_inputs, or d_weights and d_biases: null where nobody asks
extern "C" void understudy_backward(const float* inputs, const float* d_outputs, float* d_inputs,
                                    const float* const* weights, const float* const* biases, float* const* d_weights,
                                    float* const* d_biases, const int64_t* widths, const int64_t* groups, int64_t envs,
                                    int64_t agents, int64_t sets, int64_t depth, int64_t activation, int64_t closed,
                                    int64_t threads) {
    const Call call{envs, agents, sets, depth, activation, closed, widths, groups};
    const std::vector<Net> nets = pack(call, weights, biases, true);
    const std::vector<Task> tasks = share_out(call, nets);
    const size_t size = nets[0].sums_size;
    static thread_local Buffer buffer;
    float* const all_sums = d_weights ? buffer.of(size * std::max<size_t>(tasks.size(), 1)) : nullptr;
#pragma omp parallel for num_threads(std::min<int64_t>(threads, tasks.size())) if (threads > 1 && tasks.size() > 1) schedule(static)
    for (size_t t = 0; t < tasks.size(); t++) {
        const Net& net = nets[tasks[t].set];
        const Work work(call, true);
        float* const sums = d_weights ? all_sums + t * size : nullptr;
        if (sums) std::memset(sums, 0, size * sizeof(float));
        for (long begin = tasks[t].begin; begin < tasks[t].end; begin += BLOCK) {
            const Rows rows{call, net, begin, std::min(BLOCK, tasks[t].end - begin)};
            rows.read(inputs, call.inputs(), work.out[0]);
            go_forward(call, net, work, rows.count, closed ? depth : depth - 1);
            if (closed)
                rows.read_times(d_outputs, call.outputs(), work.gradient[depth]);
            else
                rows.read(d_outputs, call.outputs(), work.gradient[depth]);
            if (d_inputs) std::fill_n(work.gradient[0], up(call.inputs(), LANES) * BLOCK, 1.0f);
            go_back(call, net, work, rows.count, sums, d_inputs);
            if (d_inputs) rows.write(work.gradient[0], call.inputs(), d_inputs);
        }
    }
    for (int64_t s = 0; d_weights && s < sets; s++) {
        float* total = nullptr;
        for (size_t t = 0; t < tasks.size(); t++) {
            if (tasks[t].set != s) continue;
            if (!total)
                total = all_sums + t * size;
            else
                for (size_t i = 0; i < size; i += LANES) at(total + i) += at(all_sums + t * size + i);
        }
        for (int64_t l = 0; l < depth; l++) {
            const Layer& layer = nets[s].layers[l];
            for (long o = 0; o < layer.out; o++) {
                float* row = d_weights[l] + (s * layer.out + o) * layer.in;
                for (long i = 0; i < layer.in; i++) {
                    const long at = layer.turned() ? o * layer.in_full + i : i * layer.out_full + o;
                    row[i] = total ? total[layer.sums + at] : 0.0f;
                }
                d_biases[l][s * layer.out + o] = total ? total[layer.bias_sums + o] : 0.0f;
            }
        }
    }
}
