// The levels of MiniGrid's tasks, from streams of our own. They choose in the order in which the Python package
// minigrid 3 chooses, between as many: given the same choices it makes the same level.
#pragma once

#include "envs/minigrid/minigrid.h"

namespace pjx {

class MiniGridLevel {
 public:
  // Into a row of any bytes.
  PJX_HD MiniGridLevel(MiniGrid::State& state, const MiniGrid::Params& params, Philox& stream)
      : s_(state), p_(params), random_(stream), cells_(MiniGrid::Cells(state)) {
    s_ = State{};
    ZeroWords(cells_, p_.grid_bytes);  // walls
    s_.x = s_.y = kNowhere;
    switch (p_.family) {
      case MiniGrid::kMultiRoom:
        MakeMultiRoom();
        break;
      case MiniGrid::kKeyCorridor:
        MakeKeyCorridor();
        break;
      case MiniGrid::kUnlock:
      case MiniGrid::kUnlockPickup:
      case MiniGrid::kBlockedUnlockPickup:
        MakeUnlock();
        break;
      case MiniGrid::kObstructedMaze:
        MakeObstructedMaze();
        break;
      case MiniGrid::kRedBlueDoors:
        MakeRedBlueDoors();
        break;
      default:
        Fill({1, 1, static_cast<int>(p_.width) - 2, static_cast<int>(p_.height) - 2}, MiniGrid::kFree);
        Set(p_.width - 2, p_.height - 2, MiniGrid::kGoal);
        if (p_.family == MiniGrid::kDoorKey) {
          MakeDoorKey();
        } else if (p_.family == MiniGrid::kCrossing) {
          MakeCrossing();
        } else if (p_.flags & MiniGrid::kRandomStart) {
          PlaceAgent(WholeGrid());
        } else {
          s_.x = s_.y = 1;
        }
    }
  }

 private:
  using State = MiniGrid::State;
  static constexpr uint8_t kNowhere = 0xFF;
  static constexpr int kMaxRooms = 12;     // one after the other
  static constexpr uint32_t kMaxSide = 3;  // rooms in a row of a grid of rooms
  static constexpr int kMinRoom = 4, kDoorTries = 8;

  struct Box {
    int left, top, width, height;
  };
  struct Place {
    uint32_t x, y;
  };

  // --- cells ---------------------------------------------------------------------------------------------------------
  PJX_HD uint32_t Below(uint32_t n) { return random_.Below(n); }
  // Colours are chosen in the order of their names: blue, green, grey, purple, red, yellow.
  PJX_HD static uint32_t ByName(uint32_t number) { return 0x403512u >> (4 * number) & 7; }
  PJX_HD uint32_t Colour() { return ByName(Below(MiniGrid::kColours)); }
  PJX_HD Box WholeGrid() const { return {0, 0, static_cast<int>(p_.width), static_cast<int>(p_.height)}; }
  PJX_HD uint8_t At(uint32_t x, uint32_t y) const { return cells_[y * p_.width + x]; }
  PJX_HD void Set(uint32_t x, uint32_t y, uint8_t code) { cells_[y * p_.width + x] = code; }
  PJX_HD void Set(Place at, uint8_t code) { Set(at.x, at.y, code); }
  PJX_HD void Fill(Box box, uint8_t code) {
    for (int y = box.top; y < box.top + box.height; ++y) {
      for (int x = box.left; x < box.left + box.width; ++x) Set(x, y, code);
    }
  }

  // A free cell of the box: not where the agent is, nor beside it if `apart`.
  PJX_HD Place FreeCell(Box box, bool apart) {
    for (;;) {
      const uint32_t x = box.left + Below(box.width), y = box.top + Below(box.height);
      if (At(x, y) != MiniGrid::kFree) continue;
      const int dx = static_cast<int>(x) - s_.x, dy = static_cast<int>(y) - s_.y;
      const int distance = (dx < 0 ? -dx : dx) + (dy < 0 ? -dy : dy);
      if (distance >= (apart ? 2 : 1)) return {x, y};
    }
  }
  PJX_HD void PlaceAgent(Box box) {
    s_.x = s_.y = kNowhere;
    const Place at = FreeCell(box, false);
    s_.x = static_cast<uint8_t>(at.x), s_.y = static_cast<uint8_t>(at.y);
    s_.heading = static_cast<uint8_t>(Below(4));
  }

  // --- grids of rooms, which share their walls -----------------------------------------------------------------------
  // Sides of a room are numbered right, down, left, up: the headings.
  struct Rooms {
    uint8_t right[kMaxSide][kMaxSide];  // [row][column], y of the door in the right wall
    uint8_t down[kMaxSide][kMaxSide];   // x of that in the lower wall
    uint8_t open[kMaxSide][kMaxSide];   // bit k: there is a door, or no wall, on side k
  };

  PJX_HD uint32_t Pitch() const { return p_.size - 1; }
  PJX_HD Box Room(uint32_t column, uint32_t row) const {
    const int side = static_cast<int>(p_.size);
    return {static_cast<int>(column * Pitch()), static_cast<int>(row * Pitch()), side, side};
  }

  // Walls around all, where doors may come, and the agent in the middle, beside which nothing is placed.
  PJX_HD void MakeRooms(Rooms* rooms) {
    const int inside = static_cast<int>(p_.size) - 2;
    for (uint32_t row = 0; row < p_.rows; ++row) {
      for (uint32_t column = 0; column < p_.columns; ++column) {
        const Box room = Room(column, row);
        Fill({room.left + 1, room.top + 1, inside, inside}, MiniGrid::kFree);
        rooms->open[row][column] = 0;
        if (column + 1 < p_.columns) rooms->right[row][column] = static_cast<uint8_t>(room.top + 1 + Below(inside));
        if (row + 1 < p_.rows) rooms->down[row][column] = static_cast<uint8_t>(room.left + 1 + Below(inside));
      }
    }
    s_.x = static_cast<uint8_t>(p_.columns / 2 * Pitch() + p_.size / 2);
    s_.y = static_cast<uint8_t>(p_.rows / 2 * Pitch() + p_.size / 2);
  }

  PJX_HD bool HasNeighbour(uint32_t column, uint32_t row, uint32_t side) const {
    return column + MiniGrid::Dx(side) < p_.columns && row + MiniGrid::Dy(side) < p_.rows;
  }
  PJX_HD Place DoorOf(const Rooms& rooms, uint32_t column, uint32_t row, uint32_t side) const {
    if (side == 2) --column;
    if (side == 3) --row;
    if (side % 2 == 0) return {(column + 1) * Pitch(), rooms.right[row][column]};
    return {rooms.down[row][column], (row + 1) * Pitch()};
  }
  PJX_HD void Open(Rooms* rooms, uint32_t column, uint32_t row, uint32_t side) const {
    rooms->open[row][column] |= static_cast<uint8_t>(1u << side);
    rooms->open[row + MiniGrid::Dy(side)][column + MiniGrid::Dx(side)] |= static_cast<uint8_t>(1u << (side + 2) % 4);
  }
  PJX_HD Place AddDoor(Rooms* rooms, uint32_t column, uint32_t row, uint32_t side, uint8_t code) {
    const Place at = DoorOf(*rooms, column, row, side);
    Set(at, code);
    Open(rooms, column, row, side);
    return at;
  }
  PJX_HD void PlaceInRoom(uint32_t column, uint32_t row, uint8_t code) { Set(FreeCell(Room(column, row), true), code); }
  // Not before a door or a thing.
  PJX_HD void PlaceAgentInRoom(uint32_t column, uint32_t row) {
    uint8_t ahead;
    do {
      PlaceAgent(Room(column, row));
      ahead = At(s_.x + MiniGrid::Dx(s_.heading), s_.y + MiniGrid::Dy(s_.heading));
    } while (ahead != MiniGrid::kFree && ahead != MiniGrid::kWall);
  }

  // --- the tasks -----------------------------------------------------------------------------------------------------
  PJX_HD void MakeDoorKey() {
    const uint32_t wall = 2 + Below(p_.size - 4);
    Fill({static_cast<int>(wall), 0, 1, static_cast<int>(p_.size)}, MiniGrid::kWall);
    const Box left = {0, 0, static_cast<int>(wall), static_cast<int>(p_.size)};
    PlaceAgent(left);
    Set(wall, 1 + Below(p_.size - 3), MiniGrid::Coloured(MiniGrid::kLocked, MiniGrid::kYellow));
    Set(FreeCell(left, false), MiniGrid::Coloured(MiniGrid::kKey, MiniGrid::kYellow));
  }

  PJX_HD void MakeUnlock() {
    Rooms rooms;
    MakeRooms(&rooms);
    if (p_.family != MiniGrid::kUnlock) {
      s_.target = MiniGrid::Coloured(MiniGrid::kBox, Colour());
      PlaceInRoom(1, 0, s_.target);
    }
    const uint32_t colour = Colour();
    const Place door = AddDoor(&rooms, 0, 0, 0, MiniGrid::Coloured(MiniGrid::kLocked, colour));
    if (p_.family == MiniGrid::kBlockedUnlockPickup) {
      Set(door.x - 1, door.y, MiniGrid::Coloured(MiniGrid::kBall, Colour()));
    }
    PlaceInRoom(0, 0, MiniGrid::Coloured(MiniGrid::kKey, colour));
    PlaceAgentInRoom(0, 0);
  }

  PJX_HD void MakeKeyCorridor() {
    Rooms rooms;
    MakeRooms(&rooms);
    for (uint32_t row = 1; row < p_.rows && row < kMaxSide; ++row) {
      const Box room = Room(1, row);
      Fill({room.left + 1, room.top, room.width - 2, 1}, MiniGrid::kFree);
      Open(&rooms, 1, row, 3);
    }
    const uint32_t locked = Below(p_.rows), colour = Colour();
    AddDoor(&rooms, 2, locked, 2, MiniGrid::Coloured(MiniGrid::kLocked, colour));
    s_.target = MiniGrid::Coloured(MiniGrid::kBall, Colour());
    PlaceInRoom(2, locked, s_.target);
    PlaceInRoom(0, Below(p_.rows), MiniGrid::Coloured(MiniGrid::kKey, colour));
    PlaceAgentInRoom(1, p_.rows / 2);
    while (!AllConnected(rooms)) {
      const uint32_t column = Below(p_.columns), row = Below(p_.rows), side = Below(4);
      if (!HasNeighbour(column, row, side) || rooms.open[row][column] >> side & 1) continue;
      const uint32_t other_column = column + MiniGrid::Dx(side), other_row = row + MiniGrid::Dy(side);
      if ((column == 2 && row == locked) || (other_column == 2 && other_row == locked)) continue;
      AddDoor(&rooms, column, row, side, MiniGrid::Coloured(MiniGrid::kClosed, Colour()));
    }
  }

  // Whether every room is reached from the one in the middle, through locked doors too.
  PJX_HD bool AllConnected(const Rooms& rooms) const {
    const uint32_t all = (1u << p_.rows * kMaxSide) - 1;
    uint32_t reached = 1u << (p_.rows / 2 * kMaxSide + 1), before = 0;
    while (reached != before) {
      before = reached;
      for (uint32_t room = 0; room < p_.rows * kMaxSide; ++room) {
        if (!(before >> room & 1)) continue;
        const uint32_t open = rooms.open[room / kMaxSide][room % kMaxSide];
        for (uint32_t side = 0; side < 4; ++side) {
          const int next = static_cast<int>(room) + MiniGrid::Dx(side) + 3 * MiniGrid::Dy(side);
          if (open >> side & 1) reached |= 1u << next;
        }
      }
    }
    return reached == all;
  }

  PJX_HD void MakeObstructedMaze() {
    Rooms rooms;
    MakeRooms(&rooms);
    uint32_t colours[MiniGrid::kColours], left[MiniGrid::kColours];
    for (uint32_t i = 0; i < MiniGrid::kColours; ++i) left[i] = ByName(i);
    for (uint32_t i = 0; i < MiniGrid::kColours; ++i) {
      uint32_t chosen = Below(MiniGrid::kColours - i);
      colours[i] = left[chosen];
      for (; chosen + 1 < MiniGrid::kColours - i; ++chosen) left[chosen] = left[chosen + 1];
    }
    s_.target = MiniGrid::Coloured(MiniGrid::kBall, MiniGrid::kBlue);
    if (p_.count == 0) {
      AddLockedDoor(&rooms, 0, 0, 0, colours[0]);
      AddKey(0, 0, colours[0]);
      PlaceInRoom(1, 0, s_.target);
      return PlaceAgentInRoom(0, 0);
    }
    for (uint32_t side = 0; side < p_.count; ++side) {
      const uint32_t column = 1 + MiniGrid::Dx(side), row = 1 + MiniGrid::Dy(side);
      AddDoor(&rooms, 1, 1, side, MiniGrid::Coloured(MiniGrid::kClosed, colours[side]));
      const uint32_t sides[2] = {(side + 3) % 4, (side + 1) % 4};
      const uint32_t of_doors[2] = {colours[(side + 5) % 6], colours[side + 1]};
      const bool keys_last = p_.flags & MiniGrid::kKeysAfterBalls;
      for (int i = 0; i < 2; ++i) {
        AddLockedDoor(&rooms, column, row, sides[i], of_doors[i]);
        // The ball before the second door may fall on the first one's key, which is then lost.
        if (!keys_last) AddKey(column, row, of_doors[i]);
      }
      for (int i = 0; keys_last && i < 2; ++i) AddKey(column, row, of_doors[i]);
    }
    // The corners between the sides: right and up, right and down, ...
    const uint32_t corner = Below(p_.count);
    PlaceInRoom(corner < 2 ? 2 : 0, corner == 1 || corner == 2 ? 2 : 0, s_.target);
    const bool at_the_side = p_.flags & MiniGrid::kStartsAtTheSide;
    PlaceAgentInRoom(at_the_side ? 2 : 1, 1);
  }
  PJX_HD void AddLockedDoor(Rooms* rooms, uint32_t column, uint32_t row, uint32_t side, uint32_t colour) {
    const Place at = AddDoor(rooms, column, row, side, MiniGrid::Coloured(MiniGrid::kLocked, colour));
    if (!(p_.flags & MiniGrid::kDoorsBlocked)) return;
    const uint32_t x = at.x - MiniGrid::Dx(side), y = at.y - MiniGrid::Dy(side);
    Set(x, y, MiniGrid::Coloured(MiniGrid::kBall, MiniGrid::kGreen));
  }
  PJX_HD void AddKey(uint32_t column, uint32_t row, uint32_t colour) {
    const auto box = static_cast<uint8_t>(MiniGrid::kBox + MiniGrid::kWithKey * (colour + 1) + MiniGrid::kGrey);
    const bool in_box = p_.flags & MiniGrid::kKeysInBoxes;
    PlaceInRoom(column, row, in_box ? box : MiniGrid::Coloured(MiniGrid::kKey, colour));
  }

  PJX_HD void MakeRedBlueDoors() {
    const int side = static_cast<int>(p_.size), left = side / 2;
    // The middle room has walls of its own; the halves of rooms beside it are reached through the doors.
    Fill({1, 1, 2 * side - 2, side - 2}, MiniGrid::kFree);
    Fill({left, 0, 1, side}, MiniGrid::kWall);
    Fill({left + side - 1, 0, 1, side}, MiniGrid::kWall);
    PlaceAgent({left, 0, side, side});
    Set(left, 1 + Below(side - 2), MiniGrid::Coloured(MiniGrid::kClosed, MiniGrid::kRed));
    Set(left + side - 1, 1 + Below(side - 2), MiniGrid::Coloured(MiniGrid::kClosed, MiniGrid::kBlue));
  }

  // Rivers of lava, or walls, between even rows and columns, with openings along one path to the goal.
  PJX_HD void MakeCrossing() {
    s_.x = s_.y = 1;
    const int side = static_cast<int>(p_.size);
    const uint32_t places = (p_.size - 3) / 2;  // of vertical ones: x = 2, 4, ...; likewise of horizontal ones
    uint32_t rivers = 0;                        // bit i: at place i; first the vertical ones
    for (uint32_t i = 0; i < p_.count; ++i) {
      uint32_t chosen = Below(2 * places - i), bit = 0;
      for (;; ++bit) {
        if (rivers >> bit & 1) continue;
        if (chosen-- == 0) break;
      }
      rivers |= 1u << bit;
    }
    int upright[8], level[8], num_upright = 0, num_level = 0;  // where they are, the border first and last
    upright[num_upright++] = level[num_level++] = 0;
    const bool is_lava = !(p_.flags & MiniGrid::kWallsCross);
    for (uint32_t bit = 0; bit < 2 * places; ++bit) {
      if (!(rivers >> bit & 1)) continue;
      const bool is_upright = bit < places;
      const int at = 2 + 2 * static_cast<int>(is_upright ? bit : bit - places);
      (is_upright ? upright[num_upright++] : level[num_level++]) = at;
      const Box river = is_upright ? Box{at, 1, 1, side - 2} : Box{1, at, side - 2, 1};
      Fill(river, is_lava ? MiniGrid::kLava : MiniGrid::kWall);
    }
    upright[num_upright] = level[num_level] = side - 1;
    // The path crosses all of them in a random order.
    uint32_t turns = 0;  // bit i: the i-th is a vertical one
    for (uint32_t i = 0, uprights_left = num_upright - 1; i < p_.count; ++i) {
      if (Below(p_.count - i) >= uprights_left) continue;
      turns |= 1u << i;
      --uprights_left;
    }
    int column = 0, row = 0;
    for (uint32_t i = 0; i < p_.count; ++i) {
      if (turns >> i & 1) {
        const int from = level[row], to = level[row + 1];
        Set(upright[++column], from + 1 + Below(to - from - 1), MiniGrid::kFree);
      } else {
        const int from = upright[column], to = upright[column + 1];
        Set(from + 1 + Below(to - from - 1), level[++row], MiniGrid::kFree);
      }
    }
  }

  // Rooms one after the other, each at a door of the last; if the next finds no place in kDoorTries tries, all begin
  // again. With twelve rooms of up to 10 x 10 that is a thousand times.
  PJX_HD void MakeMultiRoom() {
    Fill(WholeGrid(), MiniGrid::kFree);
    const uint64_t seed = static_cast<uint64_t>(random_.Next()) << 32;
    ChoiceRandom choices(seed | random_.Next());
    const int wanted = static_cast<int>(p_.count);
    Box rooms[kMaxRooms];
    Place doors[kMaxRooms];  // through which they are entered
    int num_rooms;
    do num_rooms = ChainRooms(choices, rooms, doors);
    while (num_rooms < wanted);
    uint32_t last = MiniGrid::kColours;
    for (int i = 0; i < num_rooms; ++i) {
      const auto& [left, top, width, height] = rooms[i];
      Fill({left, top, width, 1}, MiniGrid::kWall);
      Fill({left, top + height - 1, width, 1}, MiniGrid::kWall);
      Fill({left, top, 1, height}, MiniGrid::kWall);
      Fill({left + width - 1, top, 1, height}, MiniGrid::kWall);
      if (i == 0) continue;
      // Of another colour than the one before.
      uint32_t colour = Below(i == 1 ? MiniGrid::kColours : MiniGrid::kColours - 1);
      if (i > 1 && colour >= last) ++colour;
      last = colour;
      Set(doors[i], MiniGrid::Coloured(MiniGrid::kClosed, ByName(colour)));
    }
    PlaceAgent(rooms[0]);
    Set(FreeCell(rooms[num_rooms - 1], false), MiniGrid::kGoal);
  }

  PJX_HD int ChainRooms(ChoiceRandom& choices, Box* rooms, Place* doors) {
    const int width = static_cast<int>(p_.width), height = static_cast<int>(p_.height);
    const int wanted = static_cast<int>(p_.count);
    choices.Draw();
    int x = static_cast<int>(choices.Below(width - 2)), y = static_cast<int>(choices.Below(width - 2));
    uint32_t entry = 2;  // the side on which the room is entered
    for (int count = 0;;) {
      bool has_place = false;
      for (int i = 0; i < (count ? kDoorTries : 1) && !has_place; ++i) {
        uint32_t next_entry = entry;
        if (count > 0) {
          choices.Draw();
          const Box& from = rooms[count - 1];
          uint32_t exit = choices.Below(3);
          if (exit >= entry) ++exit;
          const int along = 1 + static_cast<int>(choices.Below((exit % 2 == 0 ? from.height : from.width) - 2));
          x = exit == 0 ? from.left + from.width - 1 : exit == 2 ? from.left : from.left + along;
          y = exit == 1 ? from.top + from.height - 1 : exit == 3 ? from.top : from.top + along;
          next_entry = (exit + 2) % 4;
        }
        Box room;
        room.width = kMinRoom + static_cast<int>(choices.Below(p_.size - kMinRoom + 1));
        room.height = kMinRoom + static_cast<int>(choices.Below(p_.size - kMinRoom + 1));
        room.left = x, room.top = y;
        if (next_entry == 0) room.left -= room.width - 1;
        if (next_entry == 1) room.top -= room.height - 1;
        if (count > 0 && next_entry % 2 == 0)
          room.top += static_cast<int>(choices.Below(room.height - 2)) - (room.height - 2);
        if (count > 0 && next_entry % 2 == 1)
          room.left += static_cast<int>(choices.Below(room.width - 2)) - (room.width - 2);
        if (room.left < 0 || room.top < 0 || room.left + room.width > width || room.top + room.height >= height) {
          continue;
        }
        // The one before shares a wall with it; to the right of others and below them it may be close.
        bool is_apart = true;
        for (int j = 0; j < count - 1 && is_apart; ++j) {
          const Box& other = rooms[j];
          is_apart = room.left + room.width < other.left || other.left + other.width <= room.left ||
                     room.top + room.height < other.top || other.top + other.height <= room.top;
        }
        if (!is_apart) continue;
        has_place = true;
        rooms[count] = room;
        doors[count] = {static_cast<uint32_t>(x), static_cast<uint32_t>(y)};
        entry = next_entry;
      }
      if (!has_place) return count;
      if (++count == wanted) return count;
    }
  }

  State& s_;
  const MiniGrid::Params& p_;
  Philox& random_;
  uint8_t* const cells_;
};

PJX_HD void MiniGrid::Draw(State& s, const Params& p, Philox& random) { MiniGridLevel(s, p, random); }

}  // namespace pjx
