-- needs: base
-- Reads lines of a job's log.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { job id, the first position or '', limit }
-- Answers { line, ... }, each after its position, as logs stores it; nil: the job does not exist.

local row = call('HMGET', K .. 'j:' .. given[1], 'q', 'x')
if not row[1] or (row[2] and tonumber(row[2]) <= now) then
  return false
end
local from = given[2] == '' and '-' or '[' .. given[2]
return call('ZRANGEBYLEX', K .. 'l:' .. given[1], from, '+', 'LIMIT', 0, given[3])
