// Forward and backward of small multilayer perceptrons. `fused.py` builds, loads and calls it; there is the why.
//
// A block of rows goes through all layers while its numbers stay in the nearest caches. Rows are samples, features lie
// side by side and are the lanes of a vector, widths filled up to whole vectors, so all that is multiplied is one kind of
// tile: ROWS x (COLUMNS * LANES) sums in registers. What fills up (lanes, and rows up to a whole tile) is computed with
// and never read.
//
// Bits: a row's outputs do not hang on the rows beside it. Gradients are summed over parts of the rows whose sizes come
// from the number of rows alone, and the parts in their order, so the number of threads changes nothing.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
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

// ---- activations, in place of what they are of ----

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
void bend(Vec x, Vec& y, Vec& slope, Vec& curve) {  // the activation and its first two derivatives
    if (ACTIVATION == TANH) {
        Vec e = expm1(2.0f * within(x, 10.0f));
        y = e / (e + 2.0f);
        slope = 1.0f - y * y;
        curve = -2.0f * y * slope;
    } else if (ACTIVATION == RELU) {
        y = x < 0.0f ? all(0.0f) : x;
        slope = x <= 0.0f ? all(0.0f) : all(1.0f);
        curve = all(0.0f);
    } else {
        Vec sigmoid = 1.0f / (expm1(-within(x, 88.0f)) + 2.0f);
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
        for (long r = 0; r < count; r++)
            for (long o = 0; o < out_full; o += LANES) at(to + bias_sums + o) += at(d_z + r * out_full + o);
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

void forward(const Call& call, const Net& net, const Work& work, long count) {
    for (long l = 0; l < call.depth; l++) {
        const Layer& layer = net.layers[l];
        layer.apply(work[OUT][l], work[OUT][l + 1], count);
        if (call.bent(l)) activate(call.activation, work[OUT][l + 1], nullptr, up(count, ROWS) * layer.out_full);
    }
}

// The gradients of d_outputs . outputs, added to `sums` and left in GRADIENT of the inputs
void backward(const Call& call, const Net& net, const Work& work, const Rows& rows, const float* d_outputs,
              float* sums, bool inputs_too, bool kept) {
    for (long l = 0; l < call.depth; l++) {
        const Layer& layer = net.layers[l];
        const long floats = up(rows.count, ROWS) * layer.out_full;
        if (!call.bent(l)) break;  // what comes out of the last layer is not asked for
        if (!kept) layer.apply(work[OUT][l], work[OUT][l + 1], rows.count);
        if (!kept) activate(call.activation, work[OUT][l + 1], work[GRADIENT][l + 1], floats);
        if (kept) find_slopes(call.activation, work[OUT][l + 1], work[GRADIENT][l + 1], floats);
    }
    if (call.closed)
        rows.read_times(d_outputs, call.outputs(), work[GRADIENT][call.depth]);
    else
        rows.read(d_outputs, call.outputs(), work[GRADIENT][call.depth]);
    if (inputs_too) std::fill_n(work[GRADIENT][0], up(call.inputs(), LANES) * BLOCK, 1.0f);
    for (long l = call.depth - 1; l >= 0; l--) {  // in GRADIENT the slope stands until the gradient takes its place
        const Layer& layer = net.layers[l];
        if (sums) {
            layer.sum_weights(work[OUT][l], work[GRADIENT][l + 1], sums, rows.count);
            layer.sum_biases(work[GRADIENT][l + 1], sums, rows.count);
        }
        if (l > 0 || inputs_too) layer.pull<SCALED>(work[GRADIENT][l + 1], work[GRADIENT][l], rows.count);
    }
}

// The same of direction . slope, where slope is the gradient of d_outputs . outputs by the inputs. That is the
// derivative of d_outputs . outputs along the direction: forward, each row has a tangent, which stands a block below
// it; backward, U is the gradient by the tangents before an activation, Z the one by what the tangents are of:
//     U = slope * dT        Z = slope * dA + turn * dT
void backward_of_slope(const Call& call, const Net& net, const Work& work, const Rows& rows, const float* d_outputs,
                       float* sums, bool inputs_too) {
    const long count = rows.count, below = BLOCK;
    for (long l = 0; l < call.depth; l++) {
        const Layer& layer = net.layers[l];
        if (!call.bent(l)) break;
        float *out = work[OUT][l + 1], *tangent = out + below * layer.out_full;
        layer.apply(work[OUT][l], out, count);
        layer.apply_flat(work[OUT][l] + below * layer.in_full, tangent, count);
        activate_both(call.activation, out, tangent, work[SLOPE][l + 1], work[TURN][l + 1],
                      up(count, ROWS) * layer.out_full);
    }
    const long outputs = up(call.outputs(), LANES);
    std::fill_n(work[GRADIENT][call.depth], count * outputs, 0.0f);
    rows.read(d_outputs, call.outputs(), work[GRADIENT][call.depth] + below * outputs);
    for (long l = call.depth - 1; l >= 0; l--) {
        const Layer& layer = net.layers[l];
        float *in = work[OUT][l], *tangent = in + below * layer.in_full;
        float *gradient = work[GRADIENT][l + 1], *of_tangent = gradient + below * layer.out_full;
        const float *slope = work[SLOPE][l + 1], *turn = work[TURN][l + 1];
        for (long i = 0; call.bent(l) && i < count * layer.out_full; i += LANES) {
            at(gradient + i) = at(slope + i) * at(gradient + i) + at(turn + i) * at(of_tangent + i);
            at(of_tangent + i) *= at(slope + i);
        }
        layer.sum_weights(in, gradient, sums, count);
        layer.sum_weights(tangent, of_tangent, sums, count);
        layer.sum_biases(gradient, sums, count);
        if (l > 0 || inputs_too) layer.pull<FROM_BIAS>(gradient, work[GRADIENT][l], count);
        if (l > 0) layer.pull<FROM_BIAS>(of_tangent, work[GRADIENT][l] + below * layer.in_full, count);
    }
}

// The parts' sums, in their order, as the call wants them
void write_sums(const Call& call, const std::vector<Net>& nets, const std::vector<Task>& tasks, float* sums,
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
            for (long o = 0; o < layer.out; o++) {
                float* row = d_weights[l] + (s * layer.out + o) * layer.in;
                for (long i = 0; i < layer.in; i++) {
                    const long place = layer.turned() ? o * layer.in_full + i : i * layer.out_full + o;
                    row[i] = total ? total[layer.sums + place] : 0.0f;
                }
                d_biases[l][s * layer.out + o] = total ? total[layer.bias_sums + o] : 0.0f;
            }
        }
    }
}

// direction: null for the gradients of d_outputs . outputs, else those of `backward_of_slope`. kept: by the forward
void all_backward(const Call& call, const float* inputs, const float* direction, float* kept, const float* d_outputs,
                  float* d_inputs, const float* const* weights, const float* const* biases, float* const* d_weights,
                  float* const* d_biases, int64_t threads) {
    const std::vector<Net> nets = pack(call, weights, biases, true);
    const std::vector<Task> tasks = share_out(call);
    const size_t size = nets[0].sums_size;
    static thread_local Buffer buffer;
    float* const all_sums = d_weights ? buffer.of(size * std::max<size_t>(tasks.size(), 1)) : nullptr;
#pragma omp parallel for num_threads(workers(threads, tasks)) if (workers(threads, tasks) > 1) schedule(static)
    for (size_t t = 0; t < tasks.size(); t++) {
        const Net& net = nets[tasks[t].set];
        Work work(call, direction ? 4 : 2, direction ? 2 * BLOCK : BLOCK);
        float* const sums = d_weights ? all_sums + t * size : nullptr;
        if (sums) std::memset(sums, 0, size * sizeof(float));
        for (long begin = tasks[t].begin; begin < tasks[t].end; begin += BLOCK) {
            const Rows rows{call, tasks[t].set, begin, std::min(BLOCK, tasks[t].end - begin)};
            if (kept) work.keep(call, kept, tasks[t].block + (begin - tasks[t].begin) / BLOCK);
            rows.read(inputs, call.inputs(), work[OUT][0]);
            if (direction) {
                rows.read(direction, call.inputs(), work[OUT][0] + BLOCK * up(call.inputs(), LANES));
                backward_of_slope(call, net, work, rows, d_outputs, sums, d_inputs);
            } else {
                backward(call, net, work, rows, d_outputs, sums, d_inputs, kept);
            }
            if (d_inputs) rows.write(work[GRADIENT][0], call.inputs(), d_inputs);
        }
    }
    if (d_weights) write_sums(call, nets, tasks, all_sums, d_weights, d_biases);
}

}  // namespace

// Tensors lie [env, agent, feature], weights [set, out, in], biases [set, out]. widths: of the inputs, then of each
// layer's outputs. groups: the set of each agent. closed: the last layer is followed by the activation too.
// d_inputs, or d_weights and d_biases: null where nobody asks

// How many floats `kept` has: what forward leaves for backward, which computes it again where kept is null. 0: nothing
extern "C" int64_t understudy_kept(const int64_t* widths, const int64_t* groups, int64_t envs, int64_t agents,
                                   int64_t sets, int64_t depth, int64_t activation, int64_t closed) {
    const Call call(widths, groups, envs, agents, sets, depth, activation, closed);
    const std::vector<Task> tasks = share_out(call);
    return tasks.empty() ? 0 : (tasks.back().block + tasks.back().blocks()) * call.kept();
}

extern "C" void understudy_forward(const float* inputs, float* outputs, float* kept, const float* const* weights,
                                   const float* const* biases, const int64_t* widths, const int64_t* groups,
                                   int64_t envs, int64_t agents, int64_t sets, int64_t depth, int64_t activation,
                                   int64_t closed, int64_t threads) {
    const Call call(widths, groups, envs, agents, sets, depth, activation, closed);
    const std::vector<Net> nets = pack(call, weights, biases, false);
    const std::vector<Task> tasks = share_out(call);
#pragma omp parallel for num_threads(workers(threads, tasks)) if (workers(threads, tasks) > 1) schedule(static)
    for (size_t t = 0; t < tasks.size(); t++) {
        const Net& net = nets[tasks[t].set];
        Work work(call, 1, BLOCK);
        for (long begin = tasks[t].begin; begin < tasks[t].end; begin += BLOCK) {
            const Rows rows{call, tasks[t].set, begin, std::min(BLOCK, tasks[t].end - begin)};
            if (kept) work.keep(call, kept, tasks[t].block + (begin - tasks[t].begin) / BLOCK);
            if (kept) work.keep(call, kept, tasks[t].block + (begin - tasks[t].begin) / BLOCK);
            rows.read(inputs, call.inputs(), work[OUT][0]);
            forward(call, net, work, rows.count);
            rows.write(work[OUT][depth], call.outputs(), outputs);
        }
    }
}

extern "C" void understudy_backward(const float* inputs, float* kept, const float* d_outputs, float* d_inputs,
                                    const float* const* weights, const float* const* biases, float* const* d_weights,
                                    float* const* d_biases, const int64_t* widths, const int64_t* groups, int64_t envs,
                                    int64_t agents, int64_t sets, int64_t depth, int64_t activation, int64_t closed,
                                    int64_t threads) {
    const Call call(widths, groups, envs, agents, sets, depth, activation, closed);
    all_backward(call, inputs, nullptr, kept, d_outputs, d_inputs, weights, biases, d_weights, d_biases, threads);
}

extern "C" void understudy_backward_of_slope(const float* inputs, const float* direction, const float* d_outputs,
                                             float* d_inputs, const float* const* weights, const float* const* biases,
                                             float* const* d_weights, float* const* d_biases, const int64_t* widths,
                                             const int64_t* groups, int64_t envs, int64_t agents, int64_t sets,
                                             int64_t depth, int64_t activation, int64_t closed, int64_t threads) {
    const Call call(widths, groups, envs, agents, sets, depth, activation, closed);
    all_backward(call, inputs, direction, nullptr, d_outputs, d_inputs, weights, biases, d_weights, d_biases, threads);
}
