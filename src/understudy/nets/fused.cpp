// Forward and backward of small multilayer perceptrons. `fused.py` builds, loads and calls it; there is the why.

#include "perceptrons.h"

namespace {

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
    pull_back(call, net, work, rows.count, sums, inputs_too);
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
    if (d_weights) write_sums(call, nets, tasks, all_sums, 1.0f, d_weights, d_biases);
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
            rows.read(inputs, call.inputs(), work[OUT][0]);
            forward(call, net, work, rows.count, false);
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
