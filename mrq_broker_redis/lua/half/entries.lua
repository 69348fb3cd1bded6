-- needs: base, batch, slots, uniques
-- Entries: places in queues without the jobs, whose records are in another store.
-- j:<id>: hash, all of whose values are short. Its fields:
--   q queue   k rank, the negative priority, if it is not 0   d when it is due, or its lease ends
--   v version, if it is not 1   n claims that the record counts, if any   t token of the claim that holds it, w its worker
--   z where it stands, if it is not claimed and has once been parked: see place_in()   b the turn that a rate gave
--   l limit keys (msgpack)   u unique key, m how long that is held, p for which period in ms
--   o there is more to a claim than this: one of l, u, b is there   r token of the claim that was released last
-- Times are Unix milliseconds.
-- u:at: hash, unique key to when it was reserved, where that tells whether its holder may be gone.

local ENTRY_FIELDS = { 'q', 'k', 'd', 'v', 'n', 't', 'l', 'u', 'm', 'p', 'z' } -- as the driver reads them

local function entry_key(id)
  return K .. 'j:' .. id
end

-- c claimed, p parked, w waiting.
local function place_in(row)
  return row.t and 'c' or row.z or 'w'
end

-- The fields of an entry before a change; nil: the entry does not exist. A parked entry has limit keys.
local function entry_of(id)
  local values = call('HMGET', entry_key(id), 'q', 'k', 'v', 't', 'o')
  if not values[1] then
    return nil
  end
  local row = { q = values[1], k = values[2] or '0', v = tonumber(values[3] or 1), t = values[4] }
  if values[5] then
    local more = call('HMGET', entry_key(id), 'z', 'l', 'u', 'm', 'b')
    row.z, row.l, row.u, row.m, row.b = more[1], more[2], more[3], more[4], more[5]
  end
  return row
end

-- Removes an entry from its sorted set. An entry that is claimed next keeps its slots.
local function leave(id, row, is_to_be_claimed)
  local place = place_in(row)
  if place == 'p' then
    unpark(id)
    sum_later(K .. 'parked-in', row.q, -1)
  elseif place == 'w' then
    remove_later(waiting_line(row.q, row.k), id)
  else
    remove_later(claimed_line(row.q), id)
    if row.l and not is_to_be_claimed then
      free_slots(id, cmsgpack.unpack(row.l))
    end
  end
  touch(row.q)
end

-- The key of a pushed entry: a free key is reserved, and the reservation of a period is confirmed.
-- unique: { key, until, period in ms or false }.
local function hold(id, unique)
  local key, lasts, period = unique[1], unique[2], unique[3] or nil
  local holder = holder_of(key)
  if not holder and (period or lasts ~= 'period') then
    reserve(id, key, period)
  end
  if lasts == 'period' then
    if not holder or holder == id then
      call('HDEL', K .. 'u:at', key)
    end
  elseif not holder then
    call('HSET', K .. 'u:at', key, digits(now))
  end
end

local function let_key_go(id, key)
  if release(id, key) then
    call('HDEL', K .. 'u:at', key)
  end
end

local pushed, named = {}, {} -- ids and queues of this batch

-- Gives an entry its place, unless there is one of the same version, or of a later one; answers with that version, or
-- nil. One that comes at the turn that a rate gave to its job keeps this turn: it was moved.
-- places: { { queue, rank }, ... }; entry: { id, number of its place, when it is due or false for now, version, claims or
-- false, token or false, limit keys (msgpack) or false, unique or false as in hold() }, where the last may be left out;
-- until_ms: the end of the lease of those with a token.
local function place_entry(places, entry, until_ms)
  local id, place, version, claims, token, limit_keys, unique = entry[1], places[entry[2]], entry[4], entry[5],
    entry[6], entry[7], entry[8]
  local queue, rank, key, turn = place[1], place[2], entry_key(entry[1]), nil
  local found = call('HMGET', key, 'q', 'v')
  if found[1] then
    local before = tonumber(found[2] or 1)
    if before >= version then
      return before
    end
    if pushed[id] then -- its lines are not written yet
      flush()
    end
    local old = entry_of(id)
    turn = old.b and old.b == entry[3] and old.b
    leave(id, old, token)
    call('DEL', key)
  end
  pushed[id] = true
  local due = token and until_ms or entry[3] or digits(now)
  local values = { 'q', queue, 'd', due }
  local function add(name, value)
    values[#values + 1], values[#values + 2] = name, value
  end
  if rank ~= '0' then
    add('k', rank)
    note_rank(rank)
  end
  if version ~= 1 then
    add('v', version)
  end
  if claims and claims > 0 then
    add('n', claims)
  end
  if limit_keys then
    add('l', limit_keys)
  end
  if unique then
    add('u', unique[1])
    add('m', unique[2])
    if unique[3] then
      add('p', unique[3])
    end
    hold(id, unique)
  end
  if turn then
    add('b', turn)
  end
  if limit_keys or unique then
    add('o', '1')
  end
  if token then
    add('t', token)
    add_later(claimed_line(queue), due, id)
    if limit_keys then
      take_slots(id, cmsgpack.unpack(limit_keys), due)
    end
  else
    add_later(waiting_line(queue, rank), due, id)
    wake(queue, due)
  end
  call('HSET', key, unpack(values))
  if not named[queue] then
    named[queue] = true
    add_later(K .. 'queues', 0, queue)
  end
  touch(queue)
  return nil
end
