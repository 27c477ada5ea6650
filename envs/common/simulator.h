// What a simulator is: the contract between a header such as envs/maze/maze.h and the executors, and what all of those
// headers share. Includes no FFI: a GPU thread and a test read it too.
//
//   struct Corridor : SimulatorDefaults {
//     using Obs = uint8_t;   // or float
//     struct Params { ... }; // fixed when the environment is made
//     struct State { ... };  // one row of the state array: plain numbers, no pointers, no padding
//     static Shape ObsShape(const Params&);                   // of one agent
//     static int64_t MaxEpisodeSteps(const Params&);          // more no episode takes
//     static int32_t NumActions(const Params&, int head);     // actions are 0 to that minus one
//     static void Reset(State&, const Params&, Philox&);      // begins an episode
//     static Outcome Step(State&, const Params&, const int32_t* actions, Philox&, float* rewards);
//     static void Observe(const State&, const Params&, Obs*); // writes every number of every agent's observation
//     static void Stagger(State&, const Params&, Philox&);    // spreads the clocks of those that start together
//     static uint32_t& Clock(State&);                         // steps since the episode began
//     static bool IsSafe(const State&, const Params&);        // may Step and Observe touch these bytes?
//     static const char* Impossible(const State&, const Params&);  // why it is no snapshot, or null
//   };
//
// A simulator whose actions are numbers says `using Action = float`, takes const float* in Step, and has instead of
// NumActions `static float ActionLow(const Params&, int head)` and ActionHigh, both finite: what a head may be.
//
// All functions are PJX_HD. Actions are [kNumAgents, kNumHeads], rewards [kNumAgents]. Reset finds zeros in a new row,
// and in one that begins anew the state in which its episode ended: what a simulator leaves standing outlives the
// episode. A simulator may also offer ReadsSoon(state, params), the address from which Step and Observe will read about
// 128 bytes; it is asked a few rows ahead, before the row is checked.
//
// A simulator whose parameters point to host memory, say to levels that all environments share, tells the GPU's
// executor of it, which then works on a copy: SharedData(Params&) is a reference to that pointer, SharedBytes(const
// Params&) says how many bytes are behind it (0: none). They are host code. Without them parameters hold no pointer.
//
// A simulator whose Reset needs more working memory than a GPU thread should have for itself offers WorkBytes(const
// Params&), how many bytes it needs (0: none), and a second Reset(State&, const Params&, Philox&, Work*) that takes
// them, or null for 0. Its Step draws no random numbers: on a GPU Reset begins the stream of the call again.
#pragma once

#include <cstring>
#include <initializer_list>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

#include "xla_ops/common/random.h"

namespace pjx {

// Of a step. What it says of an episode counts where the step ends one, by either flag.
struct Outcome {
  bool terminated, truncated;
  float episode_return, score, perf;  // perf is 0..1
  int32_t episode_length;
};

// Of an observation: up to four axes.
struct Shape {
  int32_t num_axes;
  int64_t axes[4];

  template <typename... Sizes>
  PJX_HD constexpr Shape(Sizes... sizes) : num_axes(sizeof...(Sizes)), axes{static_cast<int64_t>(sizes)...} {}
  PJX_HD constexpr int64_t size() const {
    int64_t product = 1;
    for (int i = 0; i < num_axes; ++i) product *= axes[i];
    return product;
  }
};

// What most simulators agree on; one that differs says so itself.
struct SimulatorDefaults {
  static constexpr int kNumAgents = 1;
  static constexpr int kNumHeads = 1;  // actions of an agent in one step
  using Action = int32_t;

  // Of a row, after its State.
  template <typename Params>
  PJX_HD static int64_t ExtraStateBytes(const Params&) {
    return 0;
  }
};

template <typename E>
constexpr bool kHasNumbers = std::is_same_v<typename E::Action, float>;  // as actions

// Whether `action` is one of the head; NaN is none.
template <typename E>
PJX_HD bool IsAction(const typename E::Params& p, int head, typename E::Action action) {
  if constexpr (kHasNumbers<E>) {
    return (action >= E::ActionLow(p, head)) & (action <= E::ActionHigh(p, head));
  } else {
    return static_cast<uint32_t>(action) < static_cast<uint32_t>(E::NumActions(p, head));
  }
}

// Uniform; of numbers, on 2^16 of them from the lowest to the highest.
template <typename E>
PJX_HD typename E::Action RandomAction(const typename E::Params& p, int head, ChoiceRandom& random) {
  if constexpr (kHasNumbers<E>) {
    constexpr uint32_t kNumbers = 1u << 16;
    const float low = E::ActionLow(p, head), high = E::ActionHigh(p, head);
    const float share = static_cast<float>(random.Below(kNumbers)) * (1.0f / (kNumbers - 1));
    const float action = low * (1 - share) + high * share;
    return action < low ? low : action > high ? high : action;  // against rounding
  } else {
    return static_cast<int32_t>(random.Below(E::NumActions(p, head)));
  }
}

template <typename E>
PJX_HD int64_t StateBytes(const typename E::Params& p) {
  return static_cast<int64_t>(sizeof(typename E::State)) + E::ExtraStateBytes(p);
}

// Fills `params` from the integers Python passed, or returns the reason they are refused. One specialisation per
// simulator, in a header beside it: the CPU's and the GPU's module both need it.
template <typename E>
std::string ParseParams(const int64_t* values, int64_t count, typename E::Params* params);

// --- ranges of parameters
struct ParamRange {
  enum Kind { kInteger, kOdd, kFloatBits };  // the last: the integer is the bits of a float32
  const char* name;
  int64_t low, high;
  Kind kind = kInteger;
};

inline float FloatParam(int64_t value) {
  const auto bits = static_cast<uint32_t>(value);
  float number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

// Why these are no parameters of `env`, one in each range; empty: they are. `rest` names what may follow them.
inline std::string CheckParams(const char* env, const int64_t* values, int64_t count,
                               std::initializer_list<ParamRange> ranges, const char* rest = nullptr) {
  const auto expected = static_cast<int64_t>(ranges.size());
  std::ostringstream text;
  text << env << ": ";
  if (count < expected || (count > expected && rest == nullptr)) {
    const char* separator = "";
    text << "params must be (";
    for (const ParamRange& range : ranges) text << std::exchange(separator, ", ") << range.name;
    if (rest != nullptr) text << separator << rest << "...";
    text << "), got " << count << " numbers";
    return text.str();
  }
  const int64_t* value = values;
  for (const auto& [name, low, high, kind] : ranges) {
    const float number = FloatParam(*value);
    const bool is_odd = *value % 2 != 0;
    const bool is_in_range = kind == ParamRange::kFloatBits
                                 ? number >= static_cast<float>(low) && number <= static_cast<float>(high)
                                 : *value >= low && *value <= high && (kind != ParamRange::kOdd || is_odd);
    if (!is_in_range) {
      const char* what = kind == ParamRange::kFloatBits ? "a number from "
                         : kind == ParamRange::kOdd     ? "an odd number from "
                                                        : "";
      text << name << " must be " << what << low << " to " << high << ", got ";
      kind == ParamRange::kFloatBits ? text << number : text << *value;
      return text.str();
    }
    ++value;
  }
  return "";
}

// --- the contract, checked
namespace contract {

template <template <typename> typename Use, typename E, typename = void>
constexpr bool kOffers = false;
template <template <typename> typename Use, typename E>
constexpr bool kOffers<Use, E, std::void_t<Use<E>>> = true;

// `Result` if an expression of type `Actual` can stand for one.
template <typename Result, typename Actual>
using As = std::enable_if_t<std::is_convertible_v<Actual, Result>>;

template <typename E>
using Types = std::void_t<typename E::Params, typename E::State, typename E::Obs>;
template <typename E>
using Action = std::enable_if_t<std::is_same_v<typename E::Action, int32_t> || kHasNumbers<E>>;
template <typename E>
using Numbers = std::enable_if_t<(E::kNumAgents > 0 && E::kNumHeads > 0)>;
template <typename E>
typename E::State& AnyState();
template <typename E>
const typename E::Params& AnyParams();
template <typename E>
using ObsShape = As<Shape, decltype(E::ObsShape(AnyParams<E>()))>;
template <typename E>
using MaxEpisodeSteps = As<int64_t, decltype(E::MaxEpisodeSteps(AnyParams<E>()))>;
template <typename E>
using NumActions = As<int32_t, decltype(E::NumActions(AnyParams<E>(), 0))>;
template <typename E>
using ActionBounds = As<float, decltype(E::ActionLow(AnyParams<E>(), 0) + E::ActionHigh(AnyParams<E>(), 0))>;
template <typename E>
using ExtraStateBytes = As<int64_t, decltype(E::ExtraStateBytes(AnyParams<E>()))>;
template <typename E>
using Reset = decltype(E::Reset(AnyState<E>(), AnyParams<E>(), std::declval<Philox&>()));
template <typename E>
using Step = As<Outcome, decltype(E::Step(AnyState<E>(), AnyParams<E>(), std::declval<const typename E::Action*>(),
                                          std::declval<Philox&>(), std::declval<float*>()))>;
template <typename E>
using Observe = decltype(E::Observe(std::as_const(AnyState<E>()), AnyParams<E>(), std::declval<typename E::Obs*>()));
template <typename E>
using Stagger = decltype(E::Stagger(AnyState<E>(), AnyParams<E>(), std::declval<Philox&>()));
template <typename E>
using Clock = As<uint32_t&, decltype(E::Clock(AnyState<E>()))>;
template <typename E>
using IsSafe = As<bool, decltype(E::IsSafe(std::as_const(AnyState<E>()), AnyParams<E>()))>;
template <typename E>
using Impossible = As<const char*, decltype(E::Impossible(std::as_const(AnyState<E>()), AnyParams<E>()))>;
template <typename E>
using WorkBytes = As<int64_t, decltype(E::WorkBytes(AnyParams<E>()))>;
template <typename E>
using SharedData = As<const void*, decltype(E::SharedData(std::declval<typename E::Params&>()))>;
template <typename E>
using ReadsSoon = As<uintptr_t, decltype(E::ReadsSoon(std::as_const(AnyState<E>()), AnyParams<E>()))>;

// Stops the compiler with a sentence for each thing that E lacks; false: then the executor is not instantiated, whose
// own complaints would bury the sentence.
template <typename E>
constexpr bool IsKept() {
  static_assert(kOffers<Types, E>, "a simulator needs the types Params, State and Obs");
  static_assert(kOffers<Action, E>,
                "a simulator needs the type Action, int32_t or float: derive from SimulatorDefaults for int32_t");
  if constexpr (!kOffers<Types, E> || !kOffers<Action, E>) {
    return false;
  } else {
    constexpr bool has_actions = kHasNumbers<E> ? kOffers<ActionBounds, E> : kOffers<NumActions, E>;
    using State = typename E::State;
    using Obs = typename E::Obs;
    constexpr bool is_plain = std::is_trivially_copyable_v<State> && std::is_standard_layout_v<State>;
    static_assert(is_plain, "State must be plain numbers: it is copied as bytes");
    constexpr bool has_obs = std::is_same_v<Obs, uint8_t> || std::is_same_v<Obs, float>;
    static_assert(has_obs, "Obs must be uint8_t or float");
    static_assert(kOffers<Numbers, E>,
                  "a simulator needs kNumAgents and kNumHeads, at least 1: derive from SimulatorDefaults for 1 and 1");
    static_assert(kOffers<ExtraStateBytes, E>,
                  "a simulator needs `int64_t ExtraStateBytes(const Params&)`: derive from SimulatorDefaults for 0");
    static_assert(kOffers<ObsShape, E>,
                  "a simulator needs `static Shape ObsShape(const Params&)`: the axes of one agent's observation");
    static_assert(kOffers<MaxEpisodeSteps, E>,
                  "a simulator needs `static int64_t MaxEpisodeSteps(const Params&)`: more no episode takes");
    static_assert(kHasNumbers<E> || has_actions,
                  "a simulator needs `static int32_t NumActions(const Params&, int head)`: how many actions there are");
    static_assert(!kHasNumbers<E> || has_actions,
                  "a simulator whose Action is float needs `static float ActionLow(const Params&, int head)` and "
                  "ActionHigh: the lowest and the highest action");
    static_assert(kOffers<Reset, E>,
                  "a simulator needs `static void Reset(State&, const Params&, Philox&)`: begins an episode");
    static_assert(
        kOffers<Step, E>,
        "a simulator needs `static Outcome Step(State&, const Params&, const Action* actions, Philox&, float* "
        "rewards)` (int32_t, or float where that is its Action): takes one step and writes the reward of every agent");
    static_assert(kOffers<Observe, E>,
                  "a simulator needs `static void Observe(const State&, const Params&, Obs*)`: writes the observation");
    static_assert(kOffers<Stagger, E>,
                  "a simulator needs `static void Stagger(State&, const Params&, Philox&)`: sets the clock to a random "
                  "time, so that environments that start together do not end together; may do nothing");
    static_assert(kOffers<Clock, E>,
                  "a simulator needs `static uint32_t& Clock(State&)`: the member that counts the episode's steps");
    static_assert(kOffers<IsSafe, E>,
                  "a simulator needs `static bool IsSafe(const State&, const Params&)`: whether Step and Observe stay "
                  "inside their memory, whatever bytes a caller says are a state");
    static_assert(kOffers<Impossible, E>,
                  "a simulator needs `static const char* Impossible(const State&, const Params&)`: why it cannot have "
                  "produced this state, or null");
    return is_plain && has_obs && kOffers<Numbers, E> && kOffers<ExtraStateBytes, E> && kOffers<ObsShape, E> &&
           kOffers<MaxEpisodeSteps, E> && has_actions && kOffers<Reset, E> && kOffers<Step, E> && kOffers<Observe, E> &&
           kOffers<Stagger, E> && kOffers<Clock, E> && kOffers<IsSafe, E> && kOffers<Impossible, E>;
  }
}

}  // namespace contract
}  // namespace pjx
