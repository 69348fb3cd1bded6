-- needs: base, recounting, batch, slots, uniques, terms
-- Jobs, and the structures that follow from them: entries, indexes, totals, slots, unique keys.
-- r:<id>: string, the job's data: the record as last written in full (msgpack) and its params (JSON), each after its
-- length in four bytes, and the outcome that came since.
-- j:<id>: hash, separate from the string so that all its values are short: the server then keeps the hash in one piece
-- of memory, at a third of the size (hash-max-listpack-value). Its fields:
--   s status   q queue   h path   k rank, the negative priority, if it is not 0   g exception type   y schedule
--   z state of its entry, if that does not follow from the status: see entry_state   d due time, or end of the lease
--   t token   w worker   n claims as of the last full write, if any   x expiry   l limit keys (msgpack)
--   u unique key   m until when the key is held   f flags: c cancel requested, o at_most_once, k search keys
--   Q time of queueing   b time at which a rate lets the job start   v version, one more with each full write after the
--   first   i time of the claim, e time of the outcome, a progress: not yet in the record
--   L claims lost in a row, as of the last full write; earlier versions: claims lost while the job ran alone
--   o set if one of n, l, u, f, g, b is: a claim or a success then reads more than the status
--   key <name>: the value of a search key; see terms
-- Times are Unix milliseconds.

local FIELDS = {
  's', 'q', 'h', 'k', 'g', 'y', 'f', 'z', 'd', 't', 'w', 'n', 'x', 'l', 'u', 'a', 'i', 'e', 'L', 'Q', 'o',
}
local USUAL = { z = 'w', k = '0' } -- not written
local INDEXED = { 's', 'q', 'h', 'k', 'z', 'd', 'x', 'g', 'y', 'l', 'u', 'm', 'f', 'w' }

-- The fields from which the structures beside the hash follow; nil: the job does not exist.
local function indexed_of(id)
  local values = try('HMGET', K .. 'j:' .. id, unpack(INDEXED))
  if not values[1] then
    return nil
  end
  local row = {}
  for index, name in ipairs(INDEXED) do
    row[name] = values[index] or nil
  end
  row.z, row.k = entry_state(row.s, row.z), row.k or '0'
  return row
end

local function line_of(row)
  if row.z == 'w' then
    return waiting_line(row.q, row.k)
  elseif row.z == 'c' then
    return claimed_line(row.q)
  end
end

local function reindex(kind, before, after, id)
  if before ~= after then
    if before then
      remove_later(index_of(kind, before), id)
    end
    if after then
      add_later(index_of(kind, after), 0, id)
    end
  end
end

local named = {} -- queues whose names are written

-- Changes all structures beside the job's hash but its search keys. `before` is nil for a new job, `after` for a deleted
-- job.
local function move_job(id, before, after)
  local old, new = before or {}, after or {}
  local old_line, new_line = before and line_of(before), after and line_of(after)
  if old_line and old_line ~= new_line then
    remove_later(old_line, id)
  end
  if new_line then
    add_later(new_line, new.d, id)
    if new.z == 'w' then
      note_rank(new.k)
      wake(new.q, new.d)
    end
  end
  reindex('s', old.s, new.s, id)
  reindex('q', old.q, new.q, id)
  reindex('h', old.h, new.h, id)
  reindex('y', old.y, new.y, id)
  if old.g or new.E then
    move_exception(id, old, new)
  end
  if old.x ~= new.x then
    if old.x then
      remove_later(K .. 'x', id)
    end
    if new.x then
      add_later(K .. 'x', new.x, id)
    end
  end
  if before then
    count_later(old.q, old.h, old.s, -1)
    touch(old.q)
    if old.z == 'p' then
      sum_later(K .. 'parked-in', old.q, -1)
    end
    if old.f and string.find(old.f, 'c', 1, true) and old.z == 'c' and new.z ~= 'c' and old.w then
      call('ZREM', K .. 'sig:' .. old.w, id)
    end
  end
  if after then
    count_later(new.q, new.h, new.s, 1)
    touch(new.q)
    if new.z == 'p' then
      sum_later(K .. 'parked-in', new.q, 1)
    end
    if old.q ~= new.q and not named[new.q] then
      named[new.q] = true
      add_later(K .. 'queues', 0, new.q)
    end
  end
  local limit_keys = old.l or new.l
  local keys = limit_keys and keys_in(limit_keys)
  if keys then
    if new.z == 'c' then
      take_slots(id, keys, new.d)
    elseif old.z == 'c' then
      free_slots(id, keys)
    end
  end
  if old.z == 'p' and new.z ~= 'p' then -- a job of a paused task is parked without limit keys
    unpark(id)
  elseif old.z == 'p' and old.k ~= new.k then
    rerank_parked(id, new.k)
  end
end

-- Replaces the stored row. Log and the mode of a unique key stay, and the params unless others are given (with their
-- length).
local function write_row(id, row, version, params)
  call('SET', data_of(id), row.r .. (params or params_in(call('GET', data_of(id)))))
  local set, unset = {}, {}
  if version > 0 then
    set[1], set[2] = 'v', version
  end
  for _, name in ipairs(FIELDS) do
    if row[name] ~= nil and row[name] ~= USUAL[name] then
      set[#set + 1] = name
      set[#set + 1] = row[name]
    else
      unset[#unset + 1] = name
    end
  end
  call('HSET', K .. 'j:' .. id, unpack(set))
  if version > 0 and #unset > 0 then
    call('HDEL', K .. 'j:' .. id, unpack(unset))
  end
end

-- keys: as add_search_keys() in terms takes them, or false.
local function insert(id, row, params, keys)
  write_row(id, row, 0, params)
  if keys then
    add_search_keys(id, keys)
  end
  move_job(id, nil, row)
end

-- Deletes a job with its log. A key that is held for a period outlives it, unless a person removed the job.
local function delete(id, row, by_a_person)
  if row.u and row.m == 'record' then
    release_record_key(id, row.u)
  elseif row.u and (by_a_person or row.m ~= 'period') then
    release(id, row.u)
  end
  if row.f and string.find(row.f, 'k', 1, true) then
    remove_search_keys(id)
  end
  move_job(id, row, nil)
  call('DEL', K .. 'j:' .. id, K .. 'r:' .. id, K .. 'l:' .. id)
end

-- Deletes an expired job with this id. False: the job exists and has not expired.
local function make_room_for(id)
  local old = indexed_of(id)
  if old and not (old.x and tonumber(old.x) <= now) then
    return false
  end
  if old then
    delete(id, old, false)
    flush()
  end
  return true
end

-- Reserves the key for a new job if the key is free; answers the holder. unique: { key, until, period }.
local function hold_key(id, unique)
  local key, lasts = unique[1], unique[2]
  if lasts == 'record' then
    local holder = record_holder_of(key)
    if not holder then
      call('HSET', K .. 'u:r', key, id)
    end
    return holder or id
  end
  local holder = holder_of(key)
  if not holder then
    reserve(id, key, lasts == 'period' and unique[3] or nil)
  end
  return holder or id
end

-- Stores a job and its entry; answers the id of the queued job, and whether it is new.
-- job: { id, row, params, unique (key, until, period) or false, delay or false, search keys or false }.
local function enqueue(job)
  local id, row, params, unique, delay, keys = job[1], job[2], job[3], job[4], job[5], job[6]
  if not make_room_for(id) then
    return id, false
  end
  if unique then
    local holder = hold_key(id, unique)
    if holder ~= id then
      return holder, false
    end
  end
  if delay then
    row.d = digits(now + delay)
  elseif not row.d then
    row.d = digits(now)
  end
  insert(id, row, params, keys)
  if unique then
    call('HSET', K .. 'j:' .. id, 'm', unique[2])
  end
  return id, true
end
