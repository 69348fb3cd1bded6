-- needs: base, recounting, batch, terms
-- Stores the exceptions of jobs that a driver of data version 1 wrote, with their terms and totals.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, start of seen, exception or false }, ... }
--   start of seen: version, token and status of the job, as the script `read` answered them
--   exception: see terms; false for a job whose latest attempt has none
-- Answers for each: 1 done, 0 the job has changed since it was read.
-- i:g:<exception type>: sorted set, the ids of jobs in version 1.

local answers = {}
for index, one in ipairs(given) do
  local id, seen, exception = one[1], one[2], one[3]
  local key = key_of(id)
  local row = call('HMGET', key, 'v', 't', 's', 'g')
  local is_same = row[3] and (row[1] or '') .. ' ' .. (row[2] or '') .. ' ' .. row[3] == seen
  if is_same and row[4] then
    remove_later(index_of('g', row[4]), id)
    move_exception(id, { g = row[4], s = row[3] }, { g = row[4], s = row[3], E = exception or nil })
    if not exception then
      call('HDEL', key, 'g')
    end
  end
  answers[index] = is_same and 1 or 0
end
flush()
return answers
