-- needs: base
-- Raises the version of the data after an upgrade. Neither number ever goes back, and the contents stay.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { version, oldest version of the driver that may work on the data }
-- No answer.
-- layout: string, "<version> <oldest> <contents>"; the parts behind the version may be missing, see server/layout.py.

local layout = K .. 'layout'
local version, rest = string.match(call('GET', layout) or '', '^(%d+)(.*)$')
if version then
  local oldest, contents = string.match(rest, '^ (%d+)(.*)$')
  oldest = math.max(tonumber(oldest or version), given[2])
  call('SET', layout, math.max(tonumber(version), given[1]) .. ' ' .. oldest .. (contents or rest))
end
