-- needs: base
-- Reads lines of a job's log. Arguments: { job id, the place to begin at or '', limit }.
-- Answers nil where there is no such job, and otherwise { line, ... }, each with its place in front.

local row = call('HMGET', K .. 'j:' .. given[1], 'q', 'x')
if not row[1] or (row[2] and tonumber(row[2]) <= now) then
  return false
end
local from = given[2] == '' and '-' or '[' .. given[2]
return call('ZRANGEBYLEX', K .. 'l:' .. given[1], from, '+', 'LIMIT', 0, given[3])
