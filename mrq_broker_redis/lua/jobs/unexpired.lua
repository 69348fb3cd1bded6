-- needs: base, recounting
-- Reads totals, less the jobs that have expired and are not deleted yet.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { 'q', 'h', 'e' or 'g' for totals by queue, path, error group or exception type,
--   most expired jobs }
-- Answers { "<status> <name>", number, ... }, or nil if more jobs have expired.

local kind, most = given[1], given[2]
local expired = on('ZRANGEBYSCORE', K .. 'x', '-inf', now, 'LIMIT', 0, most + 1)
if #expired > most then
  return false
end

-- The value by which a job is counted; nil for none.
local function name_of(id, row)
  if kind ~= 'e' then
    return row[2]
  end
  local exception = row[3] and exception_of(id)
  return exception and exception[1]
end

local totals = numbers_in(K .. 'n:' .. kind)
local less = {}
for _, id in ipairs(expired) do
  local row = call('HMGET', key_of(id), 's', kind, 'g')
  local name = row[1] and name_of(id, row)
  if name then
    local field = row[1] .. ' ' .. name
    less[field] = (less[field] or 0) + 1
  end
end
for index = 1, #totals, 2 do
  totals[index + 1] = tonumber(totals[index + 1]) - (less[totals[index]] or 0)
end
return totals
