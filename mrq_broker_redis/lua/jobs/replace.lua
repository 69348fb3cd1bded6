-- needs: base, recounting, batch, slots, limits, uniques, terms, records
-- Writes each record in full if the job has not changed since it was read, and stores its follow-ups.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { limits, { { id, seen, row or false, keep, { follow-up }, asks, edit }, ... } }
--   limits: as in claiming, for jobs that are claimed again; empty without limits
--   seen: as read answered it; row: the fields, false to delete the job
--   keep: 'reserve' to reserve the unique key of a job that is queued again, otherwise ''
--   follow-up: as the argument of enqueue() in records; asks: whether to ask the worker to stop the job
--   edit: { keys or false, params with their length or false, whether the job has a new due time }; nil: they stay
--     keys: as add_search_keys() in terms takes them, in place of those that the job has
-- Answers for each: 1 written, 0 the job has changed or its limits leave no room, 2 another job holds its unique key.

-- Whether limits leave no room for a job that is claimed again.
local function is_kept_out(id, row)
  return row and row.z == 'c' and row.l and not has_slots(id, cmsgpack.unpack(row.l))
end

rules = given[1]
local answers = {}
for index, one in ipairs(given[2]) do
  local id, seen, row, keep, followups, asks, edit = one[1], one[2], one[3], one[4], one[5], one[6], one[7] or {}
  local old = indexed_of(id)
  local values = call('HMGET', K .. 'j:' .. id, 'v', 't', 's', 'z', 'd', 'a')
  values[4] = entry_state(values[3], values[4])
  for number = 1, 6 do
    values[number] = values[number] or ''
  end
  if not old or table.concat(values, ' ') ~= seen or is_kept_out(id, row) then
    answers[index] = 0
  elseif not row then
    delete(id, old, true)
    answers[index] = 1
  else
    local held = false
    local key = old.m ~= 'record' and old.u -- a key until `record` stays
    if keep == 'reserve' and key then
      local holder = holder_of(key)
      held = holder and holder ~= id
      if not held and (old.m == 'queued' or old.m == 'done') then
        reserve(id, key, nil)
      end
    elseif key then
      if (row.z == 'c' and old.m == 'queued') or (row.z == '' and old.m ~= 'period') then
        release(id, key)
      end
    end
    if held then
      answers[index] = 2
    else
      move_job(id, old, row)
      running = {} -- counted anew for the next
      write_row(id, row, (tonumber(values[1]) or 0) + 1, edit[2])
      if edit[1] then
        replace_search_keys(id, edit[1])
      end
      if edit[3] then
        call('HDEL', K .. 'j:' .. id, 'b') -- its rates are charged anew
      end
      if asks then
        call('ZADD', K .. 'sig:' .. row.w, call('INCR', K .. 'signals'), id)
      end
      answers[index] = 1
      if #followups > 0 then
        flush()
        for _, job in ipairs(followups) do
          enqueue(job)
        end
      end
    end
  end
end
flush()
return answers
