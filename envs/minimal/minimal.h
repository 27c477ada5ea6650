// Eight agents on a plane pick up targets of the type each of them carries; a pick-up changes that type to the next.
//
// The plane is 1080 x 720 px. There are 16 entities, the agents first, then 8 targets; entity i starts with type i mod
// 4 at a random place. Each agent has two actions: turn by (a - 4) / 12 rad, and change the speed by a - 2 px per step
// within 0..20. In index order, every agent turns, moves at the speed it had, changes its speed, and takes the first
// target that is not cooling down, has its type, and lies within 32 px along both axes: reward 1, the agent takes on
// the next type, the target cools down for 30 steps and with probability 1/10 moves elsewhere. The original game never
// ends; here an episode may be truncated after `max_steps`, so that there are episodes to report.
//
// The observation of an agent is heading / 2 pi, speed / 20, then for each of the 16 entities, itself included: the way
// to it as dx / width and dy / height, its cooldown as a share of 30 steps, and whether it has the agent's type.
#pragma once

#include <cmath>

#include "envs/common/simulator.h"
#include "envs/common/sine.h"

namespace pjx {

struct Minimal : SimulatorDefaults {
  using Obs = float;
  static constexpr int kNumAgents = 8, kNumTargets = 8, kNumHeads = 2;
  static constexpr int kNumSelf = 2, kEntitySize = 4;  // of an observation
  static constexpr int kNumTypes = 4, kNumTurns = 9, kNumSpeedups = 5;
  static constexpr int kWidth = 1080, kHeight = 720, kMargin = 16;  // px
  static constexpr float kReach = 32.0f, kMaxSpeed = 20.0f;         // px, px per step
  static constexpr uint32_t kCooldown = 30;                         // steps
  static constexpr uint32_t kMoveOdds = 10;                         // one pick-up in ten moves the target
  static constexpr float kPi = 3.14159265358979f;

  struct Params {
    uint32_t max_steps;  // of an episode; 0: it never ends
  };

  struct Agent {
    float x, y;       // [16, width - 1] x [16, height - 1]; once moved, 16 from every edge
    float heading;    // rad, [-pi, pi]
    float speed;      // px per step, a whole number in [0, 20]
    uint32_t type;    // [0, 4)
    uint32_t waited;  // steps since its last pick-up, or since the episode began
  };
  struct Target {
    float x, y;  // whole numbers, [16, width - 1] x [16, height - 1]
    uint32_t type;
    uint32_t cooldown;  // steps until it can be taken, [0, 30)
  };
  struct State {
    Agent agents[kNumAgents];
    Target targets[kNumTargets];
    uint32_t tick;     // steps since the episode began
    uint32_t pickups;  // of all agents, in this episode
    float promptness;  // sum over these of min(30 / steps the agent had waited, 1)
    uint32_t unused;
  };
  static_assert(sizeof(State) == 336, "rows stay 16-byte aligned and free of padding");

  // --- sizes ---------------------------------------------------------------------------------------------------------
  PJX_HD static Shape ObsShape(const Params&) { return {kNumSelf + (kNumAgents + kNumTargets) * kEntitySize}; }
  PJX_HD static int64_t MaxEpisodeSteps(const Params& p) { return p.max_steps; }
  PJX_HD static int32_t NumActions(const Params&, int head) { return head == 0 ? kNumTurns : kNumSpeedups; }

  // --- the simulator -------------------------------------------------------------------------------------------------
  PJX_HD static void Reset(State& s, const Params&, Philox& random) {
    s = State{};
    for (int i = 0; i < kNumAgents; ++i) {
      Place(s.agents[i].x, s.agents[i].y, random);
      s.agents[i].type = i % kNumTypes;
    }
    for (int i = 0; i < kNumTargets; ++i) {
      Place(s.targets[i].x, s.targets[i].y, random);
      s.targets[i].type = (kNumAgents + i) % kNumTypes;
    }
  }

  PJX_HD static void Place(float& x, float& y, Philox& random) {
    x = static_cast<float>(kMargin + random.Below(kWidth - kMargin));
    y = static_cast<float>(kMargin + random.Below(kHeight - kMargin));
  }

  // Sets the clock to a uniformly random time, so that environments that start together do not time out together.
  PJX_HD static void Stagger(State& s, const Params& p, Philox& random) {
    if (p.max_steps) s.tick = random.Below(p.max_steps);
  }

  PJX_HD static uint32_t& Clock(State& s) { return s.tick; }

  PJX_HD static Outcome Step(State& s, const Params& p, const int32_t* actions, Philox& random, float* rewards) {
    for (int i = 0; i < kNumAgents; ++i) {
      Agent& agent = s.agents[i];
      Move(agent, actions[i * kNumHeads], actions[i * kNumHeads + 1]);
      ++agent.waited;
      rewards[i] = 0.0f;
      for (Target& target : s.targets) {
        if (!CanTake(agent, target)) continue;
        rewards[i] = 1.0f;
        ++s.pickups;
        s.promptness += Min(30.0f / static_cast<float>(agent.waited), 1.0f);
        agent.waited = 0;
        agent.type = (agent.type + 1) % kNumTypes;
        target.cooldown = kCooldown;
        if (random.Below(kMoveOdds) == 0) Place(target.x, target.y, random);
        break;
      }
    }
    for (Target& target : s.targets) target.cooldown -= target.cooldown > 0;
    s.tick += s.tick < INT32_MAX;  // an episode that never ends outlives a 32-bit clock
    Outcome outcome{};
    outcome.truncated = p.max_steps && s.tick >= p.max_steps;
    outcome.episode_return = outcome.score = static_cast<float>(s.pickups);
    outcome.perf = s.pickups ? s.promptness / static_cast<float>(s.pickups) : 0.0f;
    outcome.episode_length = static_cast<int32_t>(s.tick);
    return outcome;
  }

  PJX_HD static void Move(Agent& agent, int32_t turn, int32_t speedup) {
    agent.heading += static_cast<float>(turn - kNumTurns / 2) / 12.0f;
    if (agent.heading > kPi) agent.heading -= 2 * kPi;
    if (agent.heading < -kPi) agent.heading += 2 * kPi;
    const Direction way = DirectionOf(agent.heading);
    agent.x = Clip(agent.x + agent.speed * way.cos, kMargin, kWidth - kMargin);
    agent.y = Clip(agent.y + agent.speed * way.sin, kMargin, kHeight - kMargin);
    agent.speed = Clip(agent.speed + static_cast<float>(speedup - kNumSpeedups / 2), 0.0f, kMaxSpeed);
  }

  PJX_HD static bool CanTake(const Agent& agent, const Target& target) {
    return (target.cooldown == 0) & (target.type == agent.type) & (std::fabs(target.x - agent.x) <= kReach) &
           (std::fabs(target.y - agent.y) <= kReach);
  }

  PJX_HD static float Min(float a, float b) { return a < b ? a : b; }
  PJX_HD static float Clip(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

  // f32[8, 66], agent after agent.
  PJX_HD static void Observe(const State& s, const Params&, Obs* obs) {
    for (const Agent& self : s.agents) {
      *obs++ = self.heading / (2 * kPi);
      *obs++ = self.speed / kMaxSpeed;
      for (const Agent& other : s.agents) obs = ObserveEntity(self, other.x, other.y, 0, other.type, obs);
      for (const Target& target : s.targets) {
        obs = ObserveEntity(self, target.x, target.y, target.cooldown, target.type, obs);
      }
    }
  }

  PJX_HD static Obs* ObserveEntity(const Agent& self, float x, float y, uint32_t cooldown, uint32_t type, Obs* obs) {
    *obs++ = (x - self.x) * (1.0f / kWidth);
    *obs++ = (y - self.y) * (1.0f / kHeight);
    *obs++ = static_cast<float>(cooldown) * (1.0f / kCooldown);
    *obs++ = type == self.type ? 1.0f : 0.0f;
    return obs;
  }

  // --- trust ---------------------------------------------------------------------------------------------------------
  // Nothing in a state says where to read or write: any bytes can be stepped and observed.
  PJX_HD static bool IsSafe(const State&, const Params&) { return true; }

  // Why a snapshot cannot have come from this simulator with these parameters, or null. Comparisons are such that NaN
  // fails them.
  PJX_HD static const char* Impossible(const State& s, const Params& p) {
    for (const Agent& agent : s.agents) {
      if (!IsInside(agent.x, agent.y)) return "an agent is outside the plane";
      if (!(agent.heading >= -kPi && agent.heading <= kPi)) return "a heading is outside -pi..pi";
      if (!(agent.speed >= 0 && agent.speed <= kMaxSpeed && agent.speed == std::floor(agent.speed))) {
        return "a speed is not a whole number in 0..20";
      }
      if (agent.type >= kNumTypes) return "the type of an agent is out of range";
    }
    for (const Target& target : s.targets) {
      if (!IsInside(target.x, target.y) || target.x != std::floor(target.x) || target.y != std::floor(target.y)) {
        return "a target is where none can be";
      }
      if (target.type >= kNumTypes) return "the type of a target is out of range";
      if (target.cooldown >= kCooldown) return "a cooldown is out of range";
    }
    if (p.max_steps ? s.tick >= p.max_steps : s.tick > INT32_MAX) return "the clock is past the step limit";
    if (!(s.promptness >= 0 && s.promptness <= static_cast<float>(s.pickups)))
      return "the figures contradict each other";
    if (s.unused != 0) return "the reserved bytes are not zero";
    return nullptr;
  }

  PJX_HD static bool IsInside(float x, float y) {
    return x >= kMargin && x <= kWidth - 1 && y >= kMargin && y <= kHeight - 1;
  }
};

}  // namespace pjx
