-- needs: base
-- Appends lines to the logs of jobs.
-- l:<job id>: sorted set by name, the position, "<attempt><seq>" with eighteen digits each, then the line (msgpack).
-- The job's hash has the size of its log as S, and F once the log is full.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { most bytes, { { job id, position, line, bytes, full line }, ... } }
--   full line: replaces the first line that does not fit
-- Answers 1.

local most = given[1]
local jobs = {}
for _, one in ipairs(given[2]) do
  local id, position, line, bytes, full_line = one[1], one[2], one[3], one[4], one[5]
  local job = jobs[id]
  if not job then
    local row = call('HMGET', K .. 'j:' .. id, 'q', 'x', 'S', 'F')
    local is_there = row[1] and not (row[2] and tonumber(row[2]) <= now)
    job = { is_there = is_there, size = tonumber(row[3] or 0), is_full = not not row[4] }
    jobs[id] = job
  end
  if job.is_there and not job.is_full then
    local key = K .. 'l:' .. id
    if #call('ZRANGEBYLEX', key, '[' .. position, '(' .. position .. '\255', 'LIMIT', 0, 1) == 0 then
      if job.size + bytes > most then
        line, bytes, job.is_full = full_line, 0, true
      end
      call('ZADD', key, 0, position .. line)
      job.size = job.size + bytes
      job.has_grown = true
    end
  end
end
for id, job in pairs(jobs) do
  if job.has_grown then
    call('HSET', K .. 'j:' .. id, 'S', job.size)
    if job.is_full then
      call('HSET', K .. 'j:' .. id, 'F', 1)
    end
  end
end
return 1
