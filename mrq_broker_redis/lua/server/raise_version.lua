-- needs: base
-- Raises the version of the data after an upgrade; the two numbers never go back.
-- KEYS, ARGV: see base. Arguments: { version, oldest version of the driver that may work on the data }. No answer.

local stored = call('GET', K .. 'layout')
local version, oldest, contents = string.match(stored or '', '^(%d+) ?(%d*)(.*)$')
if version then
  version = math.max(tonumber(version), given[1])
  oldest = math.max(tonumber(oldest) or 1, given[2])
  call('SET', K .. 'layout', version .. ' ' .. oldest .. contents)
end
