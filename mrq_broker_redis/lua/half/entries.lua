-- needs: base, recounting, batch, slots, uniques
-- Entries of jobs whose records are in another store.
-- j:<id>: hash, whose values are all short. Its fields:
--   q queue   k rank, the negative priority, if it is not 0   d due time, or end of the lease
--   v version, if it is not 1   n claims that the record counts, if any   t token of the claim, w its worker
--   z state, if the entry is not claimed and was once parked: see state_of()   b when a rate lets the job start
--   l limit keys (msgpack)   u unique key, m until when the key is held, p its period in ms
--   o set if one of l, u, b is, or the entry was once parked: a claim then reads more
--   r token of the claim that was released last
-- Times are Unix milliseconds.
-- u:at: hash, unique key to the time of its reservation, if the holder may be gone after that time.

local ENTRY_FIELDS = { 'q', 'k', 'd', 'v', 'n', 't', 'l', 'u', 'm', 'p', 'z' } -- as the driver reads them

local function entry_key(id)
  return K .. 'j:' .. id
end

-- Whether the fields of an entry, in the order of ENTRY_FIELDS, can be read.
local function is_whole(row)
  return row[1] and tonumber(row[2] or 0) and tonumber(row[3]) and tonumber(row[4] or 1) and tonumber(row[5] or 0)
    and (not row[7] or keys_in(row[7]))
end

-- c claimed, p parked, w waiting.
local function state_of(row)
  return row.t and 'c' or row.z or 'w'
end

-- The fields of an entry before a change; nil: the entry does not exist. A parked entry has o.
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
local function leave(id, row, is_claimed_next)
  local state = state_of(row)
  if state == 'p' then
    unpark(id)
    sum_later(K .. 'parked-in', row.q, -1)
  elseif state == 'w' then
    remove_later(waiting_line(row.q, row.k), id)
  else
    remove_later(claimed_line(row.q), id)
    if row.l and not is_claimed_next then
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

local function free_key(id, key)
  if release(id, key) then
    call('HDEL', K .. 'u:at', key)
  end
end

local pushed, named = {}, {} -- ids and queues of this batch

-- Stores an entry, unless an entry of the same or a later version exists; answers that version, or nil. An entry that
-- is due when a rate lets its job start keeps this time as reserved: the job was moved or edited. An entry without a due
-- time keeps the due time, or the parking, of the waiting entry that it replaces.
-- queues: { { queue, rank }, ... }; entry: { id, index in queues, due or false for now, version, claims or false,
-- token or false, limit keys (msgpack) or false, unique or false as in hold() }, of which the last four may be left
-- out; until_ms: the end of the lease of an entry with a token.
local function push_entry(queues, entry, until_ms)
  local id, target, version, claims, token, limit_keys, unique = entry[1], queues[entry[2]], entry[4], entry[5],
    entry[6], entry[7], entry[8]
  local queue, rank, key, allowed_ms = target[1], target[2], entry_key(entry[1]), nil
  local kept_due, is_parked -- of the entry before
  local found = call('HMGET', key, 'q', 'v')
  if found[1] then
    local before = tonumber(found[2] or 1)
    if before >= version then
      return before
    end
    if pushed[id] then -- flush() has not written its sets yet
      flush()
    end
    local old = entry_of(id)
    if not token and not entry[3] and not old.t then
      kept_due = call('HGET', key, 'd')
      is_parked = state_of(old) == 'p' and call('HEXISTS', K .. 'parked', id) == 1
    end
    allowed_ms = old.b and old.b == (kept_due or entry[3]) and old.b
    if is_parked then
      sum_later(K .. 'parked-in', old.q, -1)
      rerank_parked(id, rank)
    else
      leave(id, old, token)
    end
    call('DEL', key)
  end
  pushed[id] = true
  local due = token and until_ms or entry[3] or kept_due or digits(now)
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
  if allowed_ms then
    add('b', allowed_ms)
  end
  if limit_keys or unique or is_parked then
    add('o', '1')
  end
  if token then
    add('t', token)
    add_later(claimed_line(queue), due, id)
    if limit_keys then
      take_slots(id, cmsgpack.unpack(limit_keys), due)
    end
  elseif is_parked then
    add('z', 'p')
    sum_later(K .. 'parked-in', queue, 1)
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
